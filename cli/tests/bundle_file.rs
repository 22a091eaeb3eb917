//! A run as one file: what goes out comes back, and nothing else does.

mod support;

use std::{fs, path::Path};

use support::{Lab, bundled_accuracy, bundled_models, coordinator_up};
use tritmark_proto::bundle::FILES;

/// A lab with the output of a short run in `out`.
fn measured() -> Lab {
    let lab = Lab::new();
    let text = format!(
        "{}{}limit = 2\n",
        bundled_models(),
        bundled_accuracy(&["boolq"])
    );
    let plan = lab.plan("short.toml", &text);
    let plan = plan.to_str().expect("it is text");
    lab.run(["run", plan, "--out", "out"]).expect(0);
    lab
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let read = |name| fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    FILES.map(read).to_vec()
}

/// Makes entries of one, given its name and bytes.
type Change<'a> = &'a dyn Fn(&str, Vec<u8>) -> Vec<(String, Vec<u8>)>;

#[test]
fn a_run_goes_into_one_file_and_comes_back() {
    let lab = measured();
    lab.run(["export", "out", "--format", "bundle", "-o", "run.tar"])
        .expect(0);
    lab.run(["import", "bundle", "run.tar", "-o", "back"])
        .expect(0);
    assert!(files(&lab.path("out/bundle")) == files(&lab.path("back")));
    // Once more gives the same file, and a folder that is there is left alone.
    lab.run(["export", "back", "--format", "bundle", "-o", "again.tar"])
        .expect(0);
    let read = |name: &str| fs::read(lab.path(name)).expect("it is there");
    assert!(read("run.tar") == read("again.tar"));
    let said = lab
        .run(["import", "bundle", "run.tar", "-o", "back"])
        .expect(2);
    assert!(said.stderr.contains("is there already"), "{}", said.stderr);
    // What came back is a bundle as any other.
    lab.run(["report", "back", "--out", "report"]).expect(0);
    assert!(lab.path("report/report.html").is_file());

    // From a coordinator, by the run's id.
    let (_coordinator, url) = coordinator_up(&lab, &lab.path("out/state"), "127.0.0.1:0");
    let listed = lab
        .run(["ls", "runs", "--json", "--coordinator", &url])
        .expect(0);
    let runs: serde_json::Value = serde_json::from_str(&listed.stdout).expect("it is JSON");
    let run = runs[0]["run_id"].as_str().expect("it has an id");
    lab.run([
        "export",
        run,
        "--format",
        "bundle",
        "-o",
        "fetched.tar",
        "--coordinator",
        &url,
    ])
    .expect(0);
    assert!(read("fetched.tar") == read("run.tar"));
}

#[test]
fn a_file_that_was_changed_is_refused() {
    let lab = measured();
    lab.run(["export", "out", "--format", "bundle", "-o", "run.tar"])
        .expect(0);
    let good = fs::read(lab.path("run.tar")).expect("it is there");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(lab.path("bad.tar"), bytes).expect("a file can be written");
        let said = lab.run(["import", "bundle", "bad.tar", "-o", "bad"]);
        assert!(matches!(said.code, Some(1 | 2)), "{what}: {said:?}");
        assert!(
            !lab.path("bad").exists() && !lab.path("bad.new").exists(),
            "{what}"
        );
        said.stderr
    };
    // A byte of each file's contents, and the file cut anywhere.
    let mut tar = tar::Archive::new(&good[..]);
    for entry in tar.entries().expect("it is a tar") {
        let entry = entry.expect("it is whole");
        let name = entry.path().expect("it has a name").display().to_string();
        let at = entry.raw_file_position() as usize;
        let mut bad = good.clone();
        bad[at + entry.size() as usize / 2] ^= 1;
        refused(&bad, &name);
        refused(&good[..at + entry.size() as usize / 2], &name);
    }
    refused(b"", "nothing");
    refused(b"hello", "no tar");

    // Entries that lead elsewhere, are left out or come on top.
    let repacked = |change: Change<'_>| {
        let mut out = tar::Builder::new(Vec::new());
        let mut tar = tar::Archive::new(&good[..]);
        for entry in tar.entries().expect("it is a tar") {
            let mut entry = entry.expect("it is whole");
            let name = entry.path().expect("it has a name").display().to_string();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).expect("it is whole");
            for (name, bytes) in change(&name, bytes) {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                // As a forger would: the name goes in unchecked.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                out.append(&header, &bytes[..]).expect("it is written");
            }
        }
        out.into_inner().expect("it is written")
    };
    let evil = repacked(&|name, bytes| {
        let name = if name == "items.parquet" {
            "../items.parquet"
        } else {
            name
        };
        vec![(name.to_owned(), bytes)]
    });
    assert!(refused(&evil, "evil").contains("not where it should be"));
    assert!(!lab.path("items.parquet").exists());
    let named = repacked(&|name, bytes| {
        let text = String::from_utf8_lossy(&bytes).replace("items.parquet", "../items.txt");
        let bytes = if name == "tritmark-bundle.json" {
            text.into_bytes()
        } else {
            bytes
        };
        vec![(name.to_owned(), bytes)]
    });
    assert!(refused(&named, "named").contains("it names `../items.txt`"));
    let fewer = repacked(&|name, bytes| {
        if name == "agreement.parquet" {
            Vec::new()
        } else {
            vec![(name.to_owned(), bytes)]
        }
    });
    assert!(refused(&fewer, "fewer").contains("agreement.parquet is missing"));
    let more = repacked(&|name, bytes| {
        let mut entries = vec![(name.to_owned(), bytes)];
        if name == "agreement.parquet" {
            entries.push(("notes.txt".to_owned(), b"hello".to_vec()));
        }
        entries
    });
    assert!(refused(&more, "more").contains("more in it than it says"));

    // Somebody who makes the hashes right, too, is found out by the agents' signatures.
    let manifest = fs::read_to_string(lab.path("out/bundle/run.json")).expect("it is there");
    let forged = manifest.replace("\"logits_fingerprint\": \"", "\"logits_fingerprint\": \"0");
    assert_ne!(forged, manifest);
    fs::write(lab.path("out/bundle/run.json"), forged).expect("it can be written");
    lab.run(["export", "out", "--format", "bundle", "-o", "forged.tar"])
        .expect(0);
    let bytes = fs::read(lab.path("forged.tar")).expect("it is there");
    assert!(refused(&bytes, "forged").contains("not what its agents signed"));
}

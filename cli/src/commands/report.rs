//! `tritmark report`: the report of a run that a coordinator holds, or of a bundle folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tritmark_reports::{
    agreement,
    bundle::Bundle,
    summary::{self, SummaryRow},
};

use crate::{
    args::{Report, Target},
    client::{Client, is_plain_name, run_id},
    commands::{block_on, bundles},
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(crate) fn exec(args: Report) -> Outcome {
    let source = Path::new(&args.source);
    let (bundle, out_dir) = if source.is_dir() {
        let bundle = bundles::folder(source);
        (bundle, args.out.unwrap_or_else(|| source.to_owned()))
    } else {
        let fetched = block_on(fetch(&args.source, args.out, &args.target))?;
        (fetched.join("bundle"), fetched)
    };
    let files = tritmark_reports::write_report(&bundle, &out_dir).or_exit(Exit::Usage, || {
        format!("cannot write the report of {}", bundle.display())
    })?;
    out::line(&files.html.display().to_string())?;
    let bundle = Bundle::read(&bundle)
        .or_exit(Exit::Usage, || format!("cannot read {}", bundle.display()))?;
    let has_values = summary::rows(&bundle).iter().any(SummaryRow::has_value)
        || !agreement::verdicts(&bundle).is_empty();
    Ok(if has_values {
        Exit::Pass
    } else {
        Exit::NothingSelected
    })
}

/// Fetches a run's bundle into a folder of its own and returns that.
async fn fetch(run: &str, out: Option<PathBuf>, target: &Target) -> Outcome<PathBuf> {
    let run = run_id(run)?;
    let mut client = Client::connect(target).await?;
    let summary = client.run(run).await?;
    let out = out.unwrap_or_else(|| {
        // The name comes over the network and must not lead out of the folder.
        let name = if is_plain_name(&summary.name) {
            format!("{}-{run}", summary.name)
        } else {
            run.to_string()
        };
        Path::new("out").join(name)
    });
    let incoming = out.join("bundle.new");
    let bundle = out.join("bundle");
    make_room(&incoming)?;
    client.fetch_bundle(run, &incoming).await?;
    // Only now: the old one stays if nothing comes.
    make_room(&bundle)?;
    fs::rename(&incoming, &bundle)
        .or_exit(Exit::Usage, || format!("cannot write {}", bundle.display()))?;
    Ok(out)
}

fn make_room(folder: &Path) -> Outcome<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).or_exit(Exit::Usage, || {
            format!("cannot replace {}", folder.display())
        })?;
    }
    Ok(())
}

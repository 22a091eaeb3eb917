use std::{fs, num::NonZeroU32};

use proptest::prelude::*;
use tritmark_proto::{
    job::{ChatSpec, JobId, KvType, Numerics, RunId, ScoreOn},
    record::{Answer, GeneratedAnswer, ItemEnergy, ItemScore},
};

use super::{key::Programs, *};
use crate::accuracy::{Question, Task};

fn prompt(index: u32, text: &str) -> Prompt {
    Prompt {
        index,
        group: None,
        doc_hash: format!("doc {index}"),
        question: Question::Generate {
            context: text.to_owned(),
            target: "4".to_owned(),
        },
    }
}

fn item(prompt: &Prompt) -> Item {
    Item {
        task: "t".to_owned(),
        group: None,
        index: prompt.index,
        doc_hash: prompt.doc_hash.clone(),
        prompt_hash: prompt.hash(),
        answer: Answer::Generated(GeneratedAnswer {
            text: "four".to_owned(),
            target: "4".to_owned(),
            n_prompt_tokens: 3,
            n_tokens: 2,
            end: "stop".to_owned(),
        }),
        scores: vec![ItemScore::plain("exact_match", 1.0)],
        elapsed_ns: Some(77),
        energy: vec![ItemEnergy {
            source: "powercap:psys".to_owned(),
            joules: 0.5,
        }],
        from_cache: None,
        scored_on: None,
    }
}

fn origin() -> ItemOrigin {
    ItemOrigin {
        job: JobId {
            run: RunId::generate(),
            index: 3,
        },
        attempt: NonZeroU32::MIN,
    }
}

fn programs() -> Programs {
    Programs {
        score_on: ScoreOn::Agent,
        evalplus_compat: false,
        evalplus_rules: "1-abc".to_owned(),
        sandbox_rules: 1,
        sandbox: Some(("3.11.2".to_owned(), true)),
    }
}

fn with_key<T>(act: impl FnOnce(&Key<'_>) -> T) -> T {
    let task = Task::named("humaneval").unwrap();
    act(&Key::of_parts(&task.definition, Some(programs())))
}

fn options(folder: &std::path::Path) -> ItemCache {
    ItemCache {
        folder: folder.to_owned(),
        max_bytes: 1 << 20,
    }
}

fn open(folder: &std::path::Path) -> Kept {
    with_key(|key| Kept::open(&options(folder), key, Some(origin())).unwrap())
}

#[test]
fn an_item_comes_back_as_it_was_but_for_what_it_took() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path());
    let prompts = [prompt(0, "a"), prompt(1, "b")];
    assert_eq!(first.get(&prompts[0]), None);
    for prompt in &prompts {
        first.put(&item(prompt));
    }
    let mut second = open(folder.path());
    for prompt in &prompts {
        let expected = Item {
            elapsed_ns: None,
            energy: Vec::new(),
            from_cache: first.origin,
            ..item(prompt)
        };
        assert_eq!(second.get(prompt), Some(expected));
    }
    // Another text, another position or another line of data is another item.
    assert_eq!(second.get(&prompt(0, "b")), None);
    assert_eq!(second.get(&prompt(2, "a")), None);
    let other = Prompt {
        doc_hash: "another".to_owned(),
        ..prompt(0, "a")
    };
    assert_eq!(second.get(&other), None);
    assert!(second.problems.is_empty());
}

#[test]
fn without_an_attempt_to_name_nothing_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = with_key(|key| Kept::open(&options(folder.path()), key, None).unwrap());
    kept.put(&item(&prompt(0, "a")));
    assert_eq!(kept.get(&prompt(0, "a")), None);
}

/// Changes one component and says whether the key's name changes.
fn check(component: &str, change: impl FnOnce(&mut Key<'_>)) {
    let task = Task::named("humaneval").unwrap();
    let key = Key::of_parts(&task.definition, Some(programs()));
    let mut changed = key.clone();
    change(&mut changed);
    assert_ne!(key.hash(), changed.hash(), "{component}");
    let folder = tempfile::tempdir().unwrap();
    let asked = prompt(0, "a");
    let mut kept = Kept::open(&options(folder.path()), &key, Some(origin())).unwrap();
    kept.put(&item(&asked));
    let mut other = Kept::open(&options(folder.path()), &changed, Some(origin())).unwrap();
    assert_eq!(other.get(&asked), None, "{component}");
    assert!(kept.get(&asked).is_some(), "{component}");
}

fn check_programs(component: &str, change: impl FnOnce(&mut Programs)) {
    check(component, |key| {
        change(key.program.as_mut().expect("the key is a program's"));
    });
}

#[test]
fn other_weights_miss() {
    check("weights", |key| key.weights_hash = "v");
}

#[test]
fn other_logits_miss() {
    check("fingerprint", |key| key.logits_fingerprint = "v");
}

#[test]
fn other_numerics_miss() {
    check("mode", |key| key.numerics = Numerics::Fast);
    check("keys and values", |key| key.kv = KvType::F16);
    check("version", |key| key.numerics_version += 1);
}

#[test]
fn a_lossy_kernel_misses() {
    check("lossy", |key| key.lossy_kernel = Some("reference-tl1-int8"));
}

#[test]
fn another_head_misses() {
    check("head", |key| key.head_format = "f16");
}

#[test]
fn another_tokenizer_misses() {
    check("tokenizer", |key| key.tokenizer = "v");
}

#[test]
fn another_chat_misses() {
    let spoken = ChatSpec {
        system: Some("Be brief.".to_owned()),
        fewshot_as_multiturn: false,
    };
    let turns = ChatSpec {
        system: None,
        fewshot_as_multiturn: true,
    };
    let plain = ChatSpec::default();
    check("template", |key| key.chat_template = Some("{{ x }}"));
    let task = Task::named("humaneval").unwrap();
    let mut key = Key::of_parts(&task.definition, None);
    let mut names = vec![key.hash()];
    for chat in [&plain, &spoken, &turns] {
        key.chat = Some(chat);
        names.push(key.hash());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4);
}

#[test]
fn another_definition_or_other_data_miss() {
    let mut raised = Task::named("humaneval").unwrap().definition;
    raised.version += 1;
    let task = Task::named("humaneval").unwrap();
    let key = Key::of_parts(&task.definition, Some(programs()));
    assert_ne!(
        key.hash(),
        Key::of_parts(&raised, Some(programs())).hash(),
        "version"
    );
    check("data", |key| key.data_hash = Some("v"));
}

#[test]
fn another_way_to_ask_misses() {
    check("examples", |key| key.num_fewshot += 1);
    check("BOS", |key| key.add_bos = !key.add_bos);
    check("max_new", |key| key.max_new = Some(7));
}

#[test]
fn another_way_to_score_programs_misses() {
    check("no program", |key| key.program = None);
    check_programs("place", |of| of.score_on = ScoreOn::Coordinator);
    check_programs("compat", |of| of.evalplus_compat = true);
    check_programs("rules", |of| of.evalplus_rules = "1-abd".to_owned());
    check_programs("sandbox rules", |of| of.sandbox_rules += 1);
    check_programs("interpreter", |of| {
        of.sandbox = Some(("3.12.0".to_owned(), true));
    });
    check_programs("namespaces", |of| {
        of.sandbox = Some(("3.11.2".to_owned(), false));
    });
    check_programs("no sandbox", |of| of.sandbox = None);
}

#[test]
fn an_entry_cut_anywhere_or_with_a_flipped_byte_is_said_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = open(folder.path());
    let asked = prompt(0, "a");
    kept.put(&item(&asked));
    let path = kept
        .folder
        .path(&kept.name(0, &asked.doc_hash, &asked.hash()));
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let cuts = (0..whole.len()).map(|n| whole[..n].to_vec());
    for bytes in cuts.chain((0..whole.len()).map(flipped)) {
        fs::write(&path, bytes).unwrap();
        assert_eq!(kept.get(&asked), None);
        assert_eq!(kept.problems.len(), 1);
        assert!(kept.problems[0].contains("evaluated anew"));
        assert!(!path.exists());
        kept.problems.clear();
    }
    kept.put(&item(&asked));
    assert!(kept.get(&asked).is_some());
}

#[test]
fn an_entry_under_another_name_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = open(folder.path());
    let [one, other] = [prompt(0, "a"), prompt(1, "b")];
    kept.put(&item(&one));
    kept.put(&item(&other));
    let path_of = |kept: &Kept, prompt: &Prompt| {
        kept.folder
            .path(&kept.name(prompt.index, &prompt.doc_hash, &prompt.hash()))
    };
    fs::copy(path_of(&kept, &one), path_of(&kept, &other)).unwrap();
    assert_eq!(kept.get(&other), None);
    assert!(kept.get(&one).is_some());
}

#[test]
fn a_folder_that_cannot_be_written_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = open(folder.path());
    let asked = prompt(0, "a");
    // A file where the entry's folder would be.
    let name = kept.name(0, &asked.doc_hash, &asked.hash());
    fs::write(folder.path().join(&name[..2]), b"in the way").unwrap();
    kept.put(&item(&asked));
    kept.put(&item(&asked));
    assert_eq!(kept.problems.len(), 1, "{:?}", kept.problems);
}

proptest! {
    #[test]
    fn no_bytes_make_an_entry_by_chance(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(unpack("name", &bytes).is_err());
        let mut with_magic = MAGIC.to_vec();
        with_magic.extend(&bytes);
        prop_assert!(unpack("name", &with_magic).is_err());
    }

    #[test]
    fn bytes_with_a_right_checksum_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut entry = MAGIC.to_vec();
        entry.extend(&bytes);
        entry.extend(sum("name", &entry).as_bytes());
        let _ = unpack("name", &entry);
    }
}

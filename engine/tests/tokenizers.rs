//! Tokenizers against the vectors that the Python library and llama.cpp printed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{path::Path, time::Instant};

use proptest::prelude::*;
use serde_json::Value;
use tritmark_engine::{
    load::VocabSource,
    tokenizer::{Special, Split, Tokenizer, clean_up_spaces},
};

/// Checks the vectors of one file under `golden/tokenizers`.
fn check_golden(tokenizer: &Tokenizer, vectors: &Path) {
    let golden = common::json(vectors);
    assert_eq!(golden["vocab_size"], tokenizer.vocab_size());
    let vectors = golden["vectors"].as_array().unwrap();
    assert!(vectors.len() > 200, "{} vectors", vectors.len());
    for vector in vectors {
        let text = vector["text"].as_str().unwrap();
        let ids = |special| tokenizer.encode(text, special, true).unwrap();
        let (plain, whole) = (ids(Special::None), ids(Special::Default));
        assert_eq!(plain, common::ids(&vector["ids"]), "{text:?}");
        assert_eq!(whole, common::ids(&vector["ids_with_special"]), "{text:?}");

        let decoded = tokenizer.decode(&whole, false);
        assert_eq!(vector["decoded"], *decoded, "{text:?}");
        let mut streamed = String::new();
        let mut stream = tokenizer.stream(false);
        for &id in &whole {
            streamed += &stream.push(id);
        }
        assert_eq!(streamed + &stream.finish(), decoded, "{text:?}");

        let clean = tokenizer.decode(&whole, true);
        let clean = if tokenizer.cleans_up_spaces() {
            clean_up_spaces(&clean)
        } else {
            clean
        };
        assert_eq!(
            vector["decoded_skip_special_cleanup_default"], *clean,
            "{text:?}"
        );
        if let Some(pieces) = vector.get("pretokens") {
            let cut: Vec<_> = Split::Llama3.pieces(text).map(Value::from).collect();
            assert_eq!(*pieces, Value::Array(cut), "{text:?}");
        }
    }
}

#[test]
fn tokenizer_json_of_the_llama3_kind_gives_the_python_librarys_tokens() {
    let Some(data) = common::data("the Llama 3 tokenizer test") else {
        return;
    };
    let vectors = data.join("golden/tokenizers/bitnet-llama3-2048.json.gz");
    for model in [
        "bitnet-tiny-packed",
        "bitnet-tiny-bf16",
        "llama-tiny",
        "llama158-tiny",
    ] {
        let tokenizer = common::folder_tokenizer(&data.join("golden/models").join(model));
        check_golden(&tokenizer, &vectors);
        assert_eq!(tokenizer.bos(), Some(1792));
        assert_eq!(tokenizer.eos(), Some(1793));
        assert_eq!(tokenizer.end_ids(), [1793, 1801]);
    }
}

#[test]
fn tokenizer_json_of_the_qwen2_kind_gives_the_python_librarys_tokens() {
    let Some(data) = common::data("the Qwen 2 tokenizer test") else {
        return;
    };
    let tokenizer = common::folder_tokenizer(&data.join("golden/models/qwen2-tiny"));
    check_golden(
        &tokenizer,
        &data.join("golden/tokenizers/qwen2-1536.json.gz"),
    );
    assert_eq!(tokenizer.bos(), None);
    assert_eq!(tokenizer.prefix_id(), Some(1538));
}

#[test]
fn another_kind_of_tokenizer_json_is_left_to_the_library() {
    let Some(data) = common::data("the Gemma tokenizer test") else {
        return;
    };
    let tokenizer = common::folder_tokenizer(&data.join("golden/models/gemma3-tiny"));
    check_golden(
        &tokenizer,
        &data.join("golden/tokenizers/gemma-1536.json.gz"),
    );
}

/// Checks llama.cpp's vectors, which lie beside a vocabulary: texts in `.inp`, ids in `.out`.
fn check_llama_cpp(path: &Path) {
    let tokenizer = common::gguf_tokenizer(path);
    let beside = |ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        common::read(Path::new(&name))
    };
    let (texts, ids) = (beside(".inp"), beside(".out"));
    let texts: Vec<_> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<Vec<u32>> = ids
        .lines()
        .map(|line| {
            line.split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(texts.len(), 46 + 1);
    assert_eq!(ids.len(), 46);
    for (text, ids) in texts.iter().zip(&ids) {
        assert_eq!(
            tokenizer.encode(text, Special::None, false).unwrap(),
            *ids,
            "{text:?}"
        );
        assert_eq!(tokenizer.decode(ids, false), *text, "{ids:?}");
    }
}

#[test]
fn gguf_vocabularies_give_llama_cpps_tokens() {
    let Some(data) = common::data("the test of GGUF vocabularies") else {
        return;
    };
    check_llama_cpp(&data.join("tokenizer-llama3/ggml-vocab-llama-bpe.gguf"));
    for name in ["qwen2", "gpt-2", "llama-spm"] {
        check_llama_cpp(&data.join(format!("tokenizers/ggml-vocab-{name}.gguf")));
    }
}

#[test]
fn a_gguf_vocabulary_is_the_tokenizer_json_it_was_made_from() {
    let Some(data) = common::data("the test of one vocabulary in two files") else {
        return;
    };
    let models = data.join("golden/models");
    let folder = common::folder_tokenizer(&models.join("bitnet-tiny-packed"));
    for format in ["i2_s", "tq2_0", "tq1_0"] {
        let gguf = common::gguf_tokenizer(&models.join(format!("bitnet-tiny.{format}.gguf")));
        assert_eq!(gguf.content_hash(), folder.content_hash());
        assert_eq!(gguf.chat_template(), folder.chat_template());
        assert_eq!(gguf.end_ids(), folder.end_ids());
    }
    // The files' own setting is not in a GGUF, so the vectors are checked on what it holds.
    let gguf = common::gguf_tokenizer(&models.join("bitnet-tiny.i2_s.gguf"));
    let golden = common::json(&data.join("golden/tokenizers/bitnet-llama3-2048.json.gz"));
    for vector in golden["vectors"].as_array().unwrap() {
        let text = vector["text"].as_str().unwrap();
        let ids = gguf.encode(text, Special::Default, true).unwrap();
        assert_eq!(ids, common::ids(&vector["ids_with_special"]), "{text:?}");
        assert_eq!(vector["decoded"], *gguf.decode(&ids, false), "{text:?}");
    }
}

#[test]
fn a_bitnet_file_without_a_splitting_rule_is_read_as_llama3() {
    let Some(data) = common::data("the test of the missing tokenizer.ggml.pre") else {
        return;
    };
    let path = data.join("golden/models/bitnet-tiny.i2_s.gguf");
    let VocabSource::Gguf(mut vocab) = common::gguf_source(&path) else {
        panic!("no vocabulary in {}", path.display());
    };
    let named = Tokenizer::new(&VocabSource::Gguf(vocab.clone())).unwrap();
    vocab.pre = None;
    let unnamed = Tokenizer::new(&VocabSource::Gguf(vocab.clone())).unwrap();
    assert_eq!(named.content_hash(), unnamed.content_hash());
    vocab.architecture = "llama".to_owned();
    let error = Tokenizer::new(&VocabSource::Gguf(vocab)).unwrap_err();
    assert!(error.to_string().contains("tokenizer.ggml.pre"), "{error}");
}

#[test]
fn wikitext2_is_289076_llama3_tokens() {
    let Some(data) = common::data("the count of wikitext2's tokens") else {
        return;
    };
    let tokenizer =
        common::gguf_tokenizer(&data.join("tokenizer-llama3/ggml-vocab-llama-bpe.gguf"));
    let text = common::read(&data.join("wikitext2/wiki.test.raw.gz"));
    let ids = tokenizer.encode(&text, Special::None, true).unwrap();
    assert_eq!(ids.len(), 289_076);
    assert_eq!(tokenizer.decode(&ids, false), text);
}

#[test]
fn a_megabyte_of_one_character_is_tokenized_in_seconds() {
    let Some(data) = common::data("the test of long monotonous texts") else {
        return;
    };
    for path in [
        "tokenizer-llama3/ggml-vocab-llama-bpe.gguf",
        "tokenizers/ggml-vocab-qwen2.gguf",
        "tokenizers/ggml-vocab-gpt-2.gguf",
        "tokenizers/ggml-vocab-llama-spm.gguf",
    ] {
        let tokenizer = common::gguf_tokenizer(&data.join(path));
        for c in ["a", " "] {
            let text = c.repeat((1 << 20) / c.len());
            let started = Instant::now();
            let ids = tokenizer.encode(&text, Special::None, true).unwrap();
            let elapsed = started.elapsed();
            assert!(elapsed.as_secs() < 20, "{path}: {c:?} took {elapsed:?}");
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
    }
}

#[test]
fn a_pair_is_split_as_lm_evaluation_harness_splits_it() {
    let Some(data) = common::data("the test of context and continuation") else {
        return;
    };
    let tokenizer = common::folder_tokenizer(&data.join("golden/models/bitnet-tiny-packed"));
    // The harness's numbers of context tokens count a first token.
    let golden = common::json(&data.join("golden/lm-eval/bitnet-tiny-packed.f32.json.gz"));
    let mut checked = 0;
    check_requests(&golden, &tokenizer, &mut checked);
    assert!(checked > 1000, "{checked} requests");
}

/// Walks a harness file for requests with a context in plain text.
fn check_requests(value: &Value, tokenizer: &Tokenizer, checked: &mut usize) {
    match value {
        Value::Array(list) => {
            for value in list {
                check_requests(value, tokenizer, checked);
            }
        }
        Value::Object(map) => {
            if let (Some(Value::String(context)), Some(Value::String(continuation)), Some(ids)) = (
                map.get("context"),
                map.get("continuation"),
                map.get("continuation_ids"),
            ) {
                let pair = tokenizer.pair(context, continuation, true).unwrap();
                assert_eq!(
                    pair.continuation,
                    common::ids(ids),
                    "{context:?} {continuation:?}"
                );
                assert_eq!(map["context_ids_n"], pair.context.len(), "{context:?}");
                *checked += 1;
            }
            for value in map.values() {
                check_requests(value, tokenizer, checked);
            }
        }
        _ => {}
    }
}

#[test]
fn random_texts_give_the_librarys_tokens() {
    let Some(data) = common::data("the comparison of random texts") else {
        return;
    };
    for model in ["bitnet-tiny-packed", "qwen2-tiny"] {
        let folder = data.join("golden/models").join(model);
        let ours = common::folder_tokenizer(&folder);
        let library = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let text = prop_oneof![
            "[a-zA-Z ]{0,80}",
            r"([ \t\r\n]|[a-z]|[0-9]|'|[!-/]|\p{L}|\p{M}|\p{N}|\p{Z}|.){0,60}",
            r"(<\|im_end\|>|<\|eot_id\|>|<\|e|ab| |the ){0,20}",
        ];
        proptest!(|(text in text)| {
            let expected = library.encode_fast(text.as_str(), true).unwrap();
            let ids = ours.encode(&text, Special::Default, true).unwrap();
            prop_assert_eq!(&ids, expected.get_ids());
            prop_assert_eq!(ours.decode(&ids, true), library.decode(&ids, true).unwrap());
        });
        proptest!(|(ids in proptest::collection::vec(0u32..1700, 0..30))| {
            let mut stream = ours.stream(false);
            let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
            streamed += &stream.finish();
            prop_assert_eq!(&streamed, &ours.decode(&ids, false));
            prop_assert_eq!(streamed, library.decode(&ids, false).unwrap());
        });
    }
}

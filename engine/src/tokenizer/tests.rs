//! Vocabularies that contradict themselves, and small ones made by hand.

use proptest::prelude::*;

use super::{byte_level::byte_to_char, *};
use crate::load::{FolderVocab, GgufVocab};

/// A byte-level vocabulary of the 256 bytes, `he`, `hel` and two special tokens.
pub(crate) fn byte_level_vocab() -> GgufVocab {
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|b| byte_to_char(b).to_string()).collect();
    tokens.extend(["he", "hel", "<|bos|>", "<|eot_id|>"].map(str::to_owned));
    let mut token_types = vec![1; 258];
    token_types.extend([3, 3]);
    GgufVocab {
        architecture: "llama".to_owned(),
        model: "gpt2".to_owned(),
        pre: Some("llama-bpe".to_owned()),
        tokens,
        token_types,
        merges: vec!["h e".to_owned(), "he l".to_owned()],
        bos_id: Some(258),
        ..GgufVocab::default()
    }
}

/// A SentencePiece vocabulary: three special tokens, the bytes, and a few pieces.
fn sentence_piece_vocab() -> GgufVocab {
    let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=u8::MAX).map(|b| format!("<0x{b:02X}>")));
    tokens.extend(["▁", "a", "b", "ab", "▁a"].map(str::to_owned));
    let mut token_types = vec![2, 3, 3];
    token_types.extend([6; 256]);
    token_types.extend([1; 5]);
    let mut scores = vec![0.0; 259];
    scores.extend([-5.0, -4.0, -3.0, -2.0, -1.0]);
    GgufVocab {
        architecture: "llama".to_owned(),
        model: "llama".to_owned(),
        tokens,
        token_types,
        scores,
        bos_id: Some(1),
        eos_id: Some(2),
        unknown_id: Some(0),
        ..GgufVocab::default()
    }
}

fn build(vocab: GgufVocab) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::new(&VocabSource::Gguf(Box::new(vocab)))
}

/// Returns the error's own text and its source's.
fn refusal(vocab: GgufVocab) -> String {
    let error = build(vocab).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[test]
fn merges_and_special_tokens_are_found() {
    let tokenizer = build(byte_level_vocab()).unwrap();
    let encode = |text, special| tokenizer.encode(text, special, true).unwrap();
    assert_eq!(
        encode("hell<|eot_id|>", Special::Default),
        [258, 257, u32::from(b'l'), 259]
    );
    assert_eq!(encode("<|bos|>he", Special::Bos), [258, 256]);
    assert_eq!(
        tokenizer
            .encode("<|bos|>", Special::None, false)
            .unwrap()
            .len(),
        7
    );
    assert_eq!(tokenizer.end_ids(), [259]);
    assert_eq!(tokenizer.decode(&[258, 257, 259, 9999], true), "hel");
    assert_eq!(tokenizer.token_text(257).as_deref(), Some("hel"));
    assert_eq!(tokenizer.vocab_size(), 260);
}

#[test]
fn sentence_piece_joins_the_best_score_first_and_falls_back_to_bytes() {
    let tokenizer = build(sentence_piece_vocab()).unwrap();
    let encode = |text| tokenizer.encode(text, Special::None, true).unwrap();
    // `▁a` scores above `ab`.
    assert_eq!(encode("ab"), [263, 261]);
    assert_eq!(encode("é"), [259, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.decode(&encode("ab é"), true), "ab é");
    assert_eq!(tokenizer.encode("", Special::Default, true).unwrap(), [1]);
}

#[test]
fn a_stream_never_gives_half_a_character() {
    let tokenizer = build(byte_level_vocab()).unwrap();
    let ids: Vec<u32> = "a€\u{1f525}".bytes().map(u32::from).collect();
    let mut stream = tokenizer.stream(true);
    let pieces: Vec<_> = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(pieces, ["a", "", "", "€", "", "", "", "\u{1f525}"]);
    stream.push(0xe2);
    assert_eq!(stream.push(u32::from(b'x')), "\u{fffd}x");
    stream.push(0xf0);
    assert_eq!(stream.finish(), "\u{fffd}");
}

#[test]
fn a_context_of_blanks_is_the_first_token() {
    let tokenizer = build(byte_level_vocab()).unwrap();
    let pair = tokenizer.pair(" ", "a", false).unwrap();
    assert_eq!(pair.context, [258]);
    assert_eq!(tokenizer.decode(&pair.continuation, false), " a");
    let pair = tokenizer.pair("", "<|bos|>a", false).unwrap();
    assert_eq!(
        (pair.context, pair.continuation),
        (vec![258], vec![u32::from(b'a')])
    );
    let pair = tokenizer.pair("x\u{1f} ", "y", true).unwrap();
    assert_eq!(pair.context, [258, u32::from(b'x')]);
    let vocab = GgufVocab {
        bos_id: None,
        ..byte_level_vocab()
    };
    assert!(matches!(
        build(vocab).unwrap().pair("", "a", false),
        Err(TokenizerError::NoPrefixToken)
    ));
}

#[test]
fn a_vocabulary_that_contradicts_itself_is_refused_by_entry() {
    let mut vocab = byte_level_vocab();
    vocab.tokens[257] = "he".to_owned();
    assert!(refusal(vocab).contains("token `he` stands twice, as 256 and as 257"));

    let mut vocab = byte_level_vocab();
    vocab.merges.push("he x y".to_owned());
    assert!(refusal(vocab).contains("merge 2 (`he x y`): `x y` is no token"));

    let mut vocab = byte_level_vocab();
    vocab.merges.push("l l".to_owned());
    assert!(refusal(vocab).contains("merge 2 (`l l`): `ll` is no token"));

    let mut vocab = byte_level_vocab();
    vocab.merges.push("hel".to_owned());
    assert!(refusal(vocab).contains("merge 2 (`hel`) is not two tokens"));

    let mut vocab = byte_level_vocab();
    vocab.tokens[usize::from(b'A')] = "AA".to_owned();
    assert!(refusal(vocab).contains("no token for byte 0x41"));

    let mut vocab = byte_level_vocab();
    vocab.token_types[3] = 9;
    assert!(refusal(vocab).contains("token 3 has type 9"));

    let mut vocab = byte_level_vocab();
    vocab.bos_id = Some(260);
    assert!(refusal(vocab).contains("the first token is 260, but there are 260 tokens"));

    let mut vocab = sentence_piece_vocab();
    vocab.scores[262] = f32::NAN;
    assert!(refusal(vocab).contains("the score of token 262 (`ab`) is not a number"));

    let mut vocab = sentence_piece_vocab();
    vocab.tokens[5] = "<0xZZ>".to_owned();
    assert!(refusal(vocab).contains("token 5 is marked as a byte, but `<0xZZ>` names none"));

    let mut vocab = sentence_piece_vocab();
    vocab.scores.pop();
    assert!(refusal(vocab).contains("263 scores for 264 tokens"));

    let vocab = GgufVocab {
        model: "bert".to_owned(),
        ..byte_level_vocab()
    };
    assert!(refusal(vocab).contains("unsupported tokenizer: tokenizer.ggml.model `bert`"));
}

/// Writes a `tokenizer.json` and builds its tokenizer.
fn from_json(json: &str) -> Result<Tokenizer, TokenizerError> {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer_json = folder.path().join("tokenizer.json");
    std::fs::write(&tokenizer_json, json).unwrap();
    Tokenizer::new(&VocabSource::TokenizerJson(FolderVocab {
        tokenizer_json,
        ..FolderVocab::default()
    }))
}

/// Returns a `tokenizer.json` of GPT-2's kind with the 256 bytes and what is given.
fn byte_level_json(more_tokens: &str, merges: &str, added: &str) -> String {
    let bytes: Vec<String> = (0..=u8::MAX)
        .map(|b| format!("{}:{b}", serde_json::json!(byte_to_char(b).to_string())))
        .collect();
    format!(
        r#"{{"added_tokens": [{added}], "normalizer": null,
        "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false}},
        "post_processor": null, "decoder": {{"type": "ByteLevel"}},
        "model": {{"type": "BPE", "vocab": {{{}{more_tokens}}}, "merges": [{merges}]}}}}"#,
        bytes.join(",")
    )
}

#[test]
fn a_tokenizer_json_that_contradicts_itself_is_refused_by_entry() {
    let tokenizer = from_json(&byte_level_json(
        r#","he":256"#,
        r#"["h","e"]"#,
        r#"{"id":300,"content":"<|im_end|>","special":true}"#,
    ))
    .unwrap();
    assert_eq!(
        tokenizer
            .encode("he<|im_end|>", Special::None, true)
            .unwrap(),
        [256, 300]
    );
    assert_eq!(tokenizer.vocab_size(), 301);

    for (tokens, merges, added, expected) in [
        (
            r#","he":256,"he":257"#,
            "",
            "",
            "token `he` stands twice, as 256 and as 257",
        ),
        (r#","he":65"#, "", "", "token 65 is both `A` and `he`"),
        (
            r#","he":4000000000"#,
            "",
            "",
            "token `he` has id 4000000000",
        ),
        ("", r#""h e""#, "", "merge 0 (`h e`): `he` is no token"),
        (
            "",
            "",
            r#"{"id":66,"content":"x y","special":true}"#,
            "token 66 is both `B` and `x y`",
        ),
    ] {
        let error = from_json(&byte_level_json(tokens, merges, added)).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(expected), "{source}");
    }
    for json in ["{}", r#"{"model": {"type": "BPE", "vocab": 3}}"#] {
        let error = from_json(json).unwrap_err();
        assert!(matches!(error, TokenizerError::Library { .. }), "{error:?}");
    }
    // The library would panic at the last.
    for json in ["", "[1, 2", "{\"decoder\": {\"type\": \"\n\"}}"] {
        let error = from_json(json).unwrap_err();
        assert!(matches!(error, TokenizerError::Json { .. }), "{error:?}");
    }
}

proptest! {
    #[test]
    fn any_list_of_tokens_is_taken_or_refused_but_never_panics(
        spm in any::<bool>(),
        edits in proptest::collection::vec((0usize..260, ".{0,6}", -1i32..8), 0..4),
        merges in proptest::collection::vec("[hel ]{0,5}", 0..4),
        ids in proptest::collection::vec(proptest::option::of(0u32..300), 3),
        text in ".{0,20}",
    ) {
        let mut vocab = if spm { sentence_piece_vocab() } else { byte_level_vocab() };
        for (at, token, kind) in edits {
            vocab.tokens[at] = token;
            vocab.token_types[at] = kind;
        }
        vocab.merges.extend(merges);
        (vocab.bos_id, vocab.eos_id, vocab.unknown_id) = (ids[0], ids[1], ids[2]);
        if let Ok(tokenizer) = build(vocab) {
            let ids = tokenizer.encode(&text, Special::Default, true).unwrap();
            tokenizer.decode(&ids, false);
            prop_assert_eq!(tokenizer.content_hash().len(), 64);
        }
    }
}

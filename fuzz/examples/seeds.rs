//! Writes small valid inputs to `corpus/<target>/` for every target to start from:
//! `cargo run --example seeds`, in the folder of the fuzz crate.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tritmark_engine::{
    format::gguf::{Array, Layout, Metadata, Value},
    synth::{self, Format, Shape},
};

/// As small as whole blocks of the ternary formats allow: small inputs are tried more often.
const TERNARY: Shape = Shape {
    name: "tiny",
    hidden_size: 256,
    ffn_size: 256,
    n_layers: 1,
    n_heads: 4,
    n_kv_heads: 2,
    head_dim: 64,
    vocab_size: 8,
    context_length: 64,
    rope_theta: 10_000.0,
};

/// As small as whole blocks of the dense formats allow.
const DENSE: Shape = Shape {
    hidden_size: 32,
    ffn_size: 32,
    n_heads: 2,
    n_kv_heads: 1,
    head_dim: 16,
    ..TERNARY
};

/// As small as whole blocks of 256 allow.
const K_BLOCKS: Shape = Shape {
    hidden_size: 256,
    ffn_size: 256,
    head_dim: 128,
    ..DENSE
};

/// Between the parts of an input; never in a text of UTF-8.
const CUT: u8 = 0xff;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] | trim + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = root.join("..");
    for format in Format::ALL {
        let path = seed("gguf", &format!("{}.gguf", format.name()));
        let shape = match format {
            Format::Q4K | Format::Q5K | Format::Q6K => K_BLOCKS,
            _ if format.is_ternary() => TERNARY,
            _ => DENSE,
        };
        synth::write(&shape, format, 1, &path, |_, _| {}).expect("a model can be written");
    }
    put("gguf_vocab", "byte_level.gguf", &byte_level_gguf());
    put("gguf_vocab", "sentence_piece.gguf", &sentence_piece_gguf());
    put("safetensors", "packed.safetensors", &safetensors());
    for name in ["config.json", "generation_config.json"] {
        let path = repository.join("models/llama-tiny").join(name);
        put(
            "hf_config",
            name,
            &fs::read(path).expect("it is in the repository"),
        );
    }
    put("hf_config", "bitnet.json", BITNET_CONFIG.as_bytes());
    let index =
        br#"{"metadata": {"total_size": 8}, "weight_map": {"a.weight": "m-1.safetensors"}}"#;
    put("hf_config", "index.json", index);
    put("hf_config", "adapter.json", ADAPTER_CONFIG.as_bytes());
    for (name, json) in tokenizer_jsons() {
        put(
            "tokenizer_json",
            name,
            &parts(&[&json, " It's 123 naïve\n\n <s>he"]),
        );
    }
    for (name, template) in [
        ("chatml", CHATML),
        ("python", PYTHON_TEMPLATE),
        ("loops", LOOP_TEMPLATE),
    ] {
        put(
            "chat_template",
            name,
            &parts(&[template, "Be brief.", "Why?", "Because."]),
        );
    }
    let plans = ["plans", "plans/examples", "coordinator/src/plan"].map(|dir| repository.join(dir));
    for folder in plans {
        for entry in fs::read_dir(folder).expect("it is in the repository") {
            let path = entry.expect("it can be listed").path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let name = path.file_name().expect("a file").to_string_lossy();
                put("plan", &name, &fs::read(&path).expect("it can be read"));
            }
        }
    }
    put("plan", "selectors.toml", PLAN_WITH_SELECTORS.as_bytes());
}

fn seed(target: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder.join(name)
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    fs::write(seed(target, name), bytes).expect("a seed can be written");
}

fn parts(texts: &[&str]) -> Vec<u8> {
    texts
        .join("\u{0}")
        .bytes()
        .map(|byte| if byte == 0 { CUT } else { byte })
        .collect()
}

/// GPT-2's alphabet: a visible character for every byte.
fn byte_to_char(byte: u8) -> char {
    let is_plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if is_plain(byte) {
        return char::from(byte);
    }
    let nth = (0..byte).filter(|&byte| !is_plain(byte)).count();
    char::from_u32(256 + nth as u32).expect("a letter of Latin Extended-A")
}

fn byte_tokens() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|byte| byte_to_char(byte).to_string())
}

fn byte_level_gguf() -> Vec<u8> {
    let tokens: Vec<String> = byte_tokens()
        .chain(["he", "hel", "<|bos|>", "<|eot_id|>"].map(str::to_owned))
        .collect();
    let mut types = vec![1; 258];
    types.extend([3, 3]);
    let text = |text: &str| Value::String(text.to_owned());
    gguf([
        ("general.architecture", text("llama")),
        ("general.name", text("hell<|eot_id|> It's 123 naïve\n\n")),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("llama-bpe")),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        (
            "tokenizer.ggml.merges",
            Value::Array(Array::String(vec!["h e".to_owned(), "he l".to_owned()])),
        ),
        ("tokenizer.ggml.bos_token_id", Value::U32(258)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.chat_template", text(CHATML)),
    ])
}

fn sentence_piece_gguf() -> Vec<u8> {
    let mut tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "a", "b", "ab", "▁a"].map(str::to_owned));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.extend([1; 5]);
    let mut scores = vec![0.0; 259];
    scores.extend([-5.0, -4.0, -3.0, -2.0, -1.0]);
    let text = |text: &str| Value::String(text.to_owned());
    gguf([
        ("general.architecture", text("llama")),
        ("general.name", text("ab a é</s>")),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.scores", Value::Array(Array::F32(scores))),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(true)),
    ])
}

fn gguf<const N: usize>(entries: [(&str, Value); N]) -> Vec<u8> {
    let mut metadata = Metadata::default();
    for (key, value) in entries {
        metadata.set(key, value);
    }
    let layout = Layout::new(metadata);
    layout.begin(Vec::new()).expect("memory takes it").finish()
}

/// The file that goes with the target's configuration: hidden size 4, one layer, packed linears.
fn safetensors() -> Vec<u8> {
    let layer = |name: &str| format!("model.layers.0.{name}");
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), "F32", vec![2, 4], 4),
        ("model.norm.weight".to_owned(), "F32", vec![4], 4),
        (layer("input_layernorm.weight"), "F32", vec![4], 4),
        (layer("post_attention_layernorm.weight"), "F32", vec![4], 4),
    ];
    for linear in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ] {
        tensors.push((layer(&format!("{linear}.weight")), "U8", vec![1, 4], 1));
        tensors.push((layer(&format!("{linear}.weight_scale")), "F32", vec![1], 4));
    }
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, size) in tensors {
        let begin = data.len();
        let n: usize = shape.iter().product();
        for _ in 0..n {
            let one = if size == 1 {
                vec![0b1001]
            } else {
                1_f32.to_le_bytes().to_vec()
            };
            data.extend(one);
        }
        let end = data.len();
        header.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

fn tokenizer_jsons() -> [(&'static str, String); 4] {
    let quoted = |text: &str| {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    };
    let vocab: Vec<String> = byte_tokens()
        .chain(["he".to_owned()])
        .enumerate()
        .map(|(id, token)| format!("{}:{id}", quoted(&token)))
        .collect();
    let byte_level = format!(
        r#"{{"version":"1.0","added_tokens":[{{"id":257,"content":"<s>","special":true}}],"normalizer":null,
"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},
"post_processor":{{"type":"TemplateProcessing","single":[{{"SpecialToken":{{"id":"<s>","type_id":0}}}},{{"Sequence":{{"id":"A","type_id":0}}}}],"pair":[],"special_tokens":{{"<s>":{{"id":"<s>","ids":[257],"tokens":["<s>"]}}}}}},
"decoder":{{"type":"ByteLevel"}},"model":{{"type":"BPE","vocab":{{{}}},"merges":["h e"]}}}}"#,
        vocab.join(",")
    );
    [
        ("byte_level", byte_level),
        ("unigram", UNIGRAM.to_owned()),
        ("word_piece", WORD_PIECE.to_owned()),
        ("word_level", WORD_LEVEL.to_owned()),
    ]
}

const UNIGRAM: &str = r#"{"version":"1.0","added_tokens":[{"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]},
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},"post_processor":null,
"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
"model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0.0],["▁",-2.0],["h",-3.0],["e",-3.5],["he",-2.5]]}}"#;

const WORD_PIECE: &str = r###"{"version":"1.0","added_tokens":[{"id":0,"content":"[UNK]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","sep":["[UNK]",0],"cls":["[UNK]",0]},
"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"[UNK]":0,"h":1,"##e":2,"it":3}}}"###;

const WORD_LEVEL: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":0},
"padding":{"strategy":{"Fixed":8},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"[PAD]"},
"added_tokens":[{"id":2,"content":"<s>","single_word":true,"lstrip":true,"rstrip":true,"normalized":true,"special":false}],
"normalizer":{"type":"Lowercase"},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\d{1,3}(?=(?:\\d{3})*\\b)"},"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},{"type":"Punctuation","behavior":"Contiguous"},{"type":"Whitespace"}]},
"post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"Strip","content":" ","start":1,"stop":0},{"type":"Fuse"}]},
"model":{"type":"WordLevel","vocab":{"it":0,"he":1},"unk_token":"it"}}"#;

const ADAPTER_CONFIG: &str = r#"{"peft_type":"LORA","r":8,"lora_alpha":16,"bias":"none","target_modules":".*(q|v)_proj",
"rank_pattern":{"layers.0.self_attn.q_proj":4},"alpha_pattern":{"^model.*v_proj":2.5},"use_rslora":true,"init_lora_weights":true}"#;

const BITNET_CONFIG: &str = r#"{"architectures":["BitNetForCausalLM"],"model_type":"bitnet","hidden_size":8,"intermediate_size":8,
"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":4,"hidden_act":"relu2","rms_norm_eps":1e-5,
"rope_theta":500000.0,"max_position_embeddings":64,"tie_word_embeddings":true,"bos_token_id":1,"eos_token_id":[2,3],
"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32},
"quantization_config":{"quant_method":"bitnet","linear_class":"autobitlinear","quantization_mode":"offline","modules_to_not_convert":["lm_head"]}}"#;

const PYTHON_TEMPLATE: &str = "{%- if messages[0]['role'] == 'system' %}{% set system = \
    messages[0]['content'].strip().split('\\n')[-1] %}{% set messages = messages[1:] %}{% endif %}\
    {{- bos_token + system | default('none') | upper }}{% for m in messages if m.role != 'system' %}\
    {%- generation %}{{ m | tojson(indent=2) }}{% endgeneration %}{{ loop.index0 ~ loop.last }}\
    {% else %}{{ raise_exception('nothing said') }}{% endfor %}{{ strftime_now('%d %b %Y') }}";

const LOOP_TEMPLATE: &str = "{% macro turn(role, text='') %}<|{{ role }}|>{{ text.replace('a', 'b') \
    [:20] }}{% endmacro %}{% set ns = namespace(n=0, text='') %}{% for i in range(10) %}{% for m in \
    messages %}{% set ns.n = ns.n + m.content | length %}{% set ns.text = ns.text ~ turn(m.role, \
    m.content) %}{% if ns.n > 99 %}{% break %}{% endif %}{% endfor %}{% endfor %}{{ ns.text | \
    length if ns.text is string else ns.n // 2 ** 3 }}{% filter indent(2) %}{{ messages | map(\
    attribute='role') | list | sort | join(', ') }}{% endfilter %}";

const PLAN_WITH_SELECTORS: &str = r#"
name = "fleet"
[defaults]
threads = [1, 2]
kernels = ["auto", "reference"]
[[models]]
id = "a"
synth = { shape = "125m", format = "i2_s", seed = 1 }
baseline = "b"
[[models]]
id = "b"
path = "b.gguf"
threads = [4]
[suites.energy]
n_prompt = [8, 16]
n_depth = [0]
idle_seconds = 0.5
models = ["a"]
[suites.accuracy]
tasks = ["boolq", "arc_easy"]
data = "d"
limit = 3
num_fewshot = 2
add_bos = true
[suites.agreement]
n_prompts = 6
threads = [1, 2]
n_batch = [1, 32]
[[select]]
arch = "x86_64"
isa = ["avx2"]
memory_min = "8 GiB"
[[select]]
labels = { rack = "7" }
"#;

//! Everything that an item's result depends on, beside its own prompt.

use serde::Serialize;
use tritmark_engine::tokenizer::Tokenizer;
use tritmark_proto::{
    job::{AccuracySpec, ChatSpec, KvType, Numerics, ScoreOn},
    record::ModelFacts,
};

use crate::{
    accuracy::{
        definition::{Definition, Kind},
        judge::Judge,
        task::Task,
    },
    evalplus, sandbox,
};

/// Raised whenever an item is evaluated or scored in another way than before, or told in another.
const VERSION: u32 = 2;

/// What an item's result depends on.
///
/// Not in it is what no result depends on: threads, lossless kernels, how many items are evaluated
/// together, limits and shards.
#[derive(Clone, Debug, Serialize)]
pub(in crate::accuracy) struct Key<'a> {
    version: u32,
    pub(super) weights_hash: &'a str,
    /// Of a fixed prompt: two engines that differ in any bit of it have nothing in common.
    pub(super) logits_fingerprint: &'a str,
    pub(super) numerics: Numerics,
    pub(super) kv: KvType,
    pub(super) numerics_version: u32,
    /// `None` for all that are lossless, whose logits are equal.
    pub(super) lossy_kernel: Option<&'a str>,
    pub(super) head_format: &'a str,
    pub(super) tokenizer: &'a str,
    pub(super) chat_template: Option<&'a str>,
    pub(super) chat: Option<&'a ChatSpec>,
    pub(super) definition: &'a Definition,
    /// Of the definition, the data, the examples and the chat.
    pub(super) data_hash: Option<&'a str>,
    pub(super) num_fewshot: u32,
    pub(super) add_bos: bool,
    pub(super) max_new: Option<u32>,
    pub(super) program: Option<Programs>,
}

/// What the verdict on a program depends on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Programs {
    pub(super) score_on: ScoreOn,
    pub(super) evalplus_compat: bool,
    pub(super) evalplus_rules: String,
    pub(super) sandbox_rules: u32,
    /// The interpreter and whether it has namespaces; `None` where verdicts are made elsewhere.
    pub(super) sandbox: Option<(String, bool)>,
}

impl<'a> Key<'a> {
    pub(in crate::accuracy) fn new(
        task: &'a Task,
        spec: &'a AccuracySpec,
        facts: &'a ModelFacts,
        tokenizer: &'a Tokenizer,
        judge: Option<&Judge>,
    ) -> Self {
        let is_program = task.definition.kind == Kind::Program;
        Self {
            version: VERSION,
            weights_hash: &facts.weights_hash,
            logits_fingerprint: &facts.logits_fingerprint,
            numerics: facts.numerics,
            kv: facts.kv,
            numerics_version: facts.numerics_version,
            lossy_kernel: facts.lossy_kernel.then_some(facts.kernel.as_str()),
            head_format: &facts.head_format,
            tokenizer: tokenizer.content_hash(),
            chat_template: tokenizer.chat_template(),
            chat: spec.chat.as_ref(),
            definition: &task.definition,
            data_hash: facts.data_hash.as_deref(),
            num_fewshot: task.num_fewshot(Some(spec.num_fewshot)),
            add_bos: spec.add_bos,
            max_new: spec.max_new.map(std::num::NonZeroU32::get),
            program: is_program.then(|| Programs {
                score_on: spec.score_on,
                evalplus_compat: spec.evalplus_compat,
                evalplus_rules: evalplus::rules(),
                sandbox_rules: sandbox::RULES_VERSION,
                sandbox: judge.map(|judge| {
                    let layers = judge.layers();
                    (layers.python, layers.namespaces)
                }),
            }),
        }
    }

    /// A key of no real model, for tests.
    #[cfg(test)]
    pub(super) fn of_parts(definition: &'a Definition, program: Option<Programs>) -> Self {
        Self {
            version: VERSION,
            weights_hash: "w",
            logits_fingerprint: "f",
            numerics: Numerics::Exact,
            kv: KvType::F32,
            numerics_version: 1,
            lossy_kernel: None,
            head_format: "f32",
            tokenizer: "t",
            chat_template: None,
            chat: None,
            definition,
            data_hash: Some("d"),
            num_fewshot: 0,
            add_bos: true,
            max_new: None,
            program,
        }
    }

    /// Returns a name for all of it.
    ///
    /// # Panics
    /// Never: every field can be written as JSON.
    pub(super) fn hash(&self) -> String {
        let stated = serde_json::to_vec(self).expect("a key is plain data");
        blake3::hash(&stated).to_hex().to_string()
    }
}

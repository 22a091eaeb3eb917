//! Programs: generated here, scored by the judge, or left for another place to score.

use tritmark_proto::record::{Answer, GeneratedAnswer};

use super::{Answered, Asker, item};
use crate::{
    SuiteError,
    accuracy::{
        data::Prompt,
        judge::{self, Program},
        outbox::Outbox,
        task::{ProgramQuestion, Question},
    },
};

/// A generated program and what it is for.
struct Written<'p> {
    prompt: &'p Prompt,
    question: &'p ProgramQuestion,
    answer: GeneratedAnswer,
    elapsed_ns: u64,
}

impl Asker<'_> {
    pub(super) fn programs(
        &mut self,
        prompts: &[Prompt],
        out: &mut Outbox<'_>,
    ) -> Result<(), SuiteError> {
        let mut written = Vec::new();
        self.generate(prompts, out, &mut |_, prompt, answer, elapsed_ns| {
            if let Question::Program(question) = &prompt.question {
                written.push(Written {
                    prompt,
                    question,
                    answer,
                    elapsed_ns,
                });
            }
            Ok(())
        })?;
        let programs: Vec<_> = written
            .iter()
            .map(|written| Program {
                index: written.prompt.index,
                question: written.question,
                text: &written.answer.text,
            })
            .collect();
        let scores = match &self.judge {
            // Tests are run by other programs; no answer took what they take.
            Some(judge) => out.without(|| judge.scores(&programs))?,
            None => programs
                .iter()
                .map(|program| judge::pending(program.question))
                .collect(),
        };
        for (written, scores) in written.iter().zip(scores) {
            let mut item = item(
                self.task,
                written.prompt,
                Answered {
                    answer: Answer::Generated(written.answer.clone()),
                    scores,
                    elapsed_ns: written.elapsed_ns,
                },
            );
            item.scored_on = self
                .judge
                .as_ref()
                .and_then(|judge| judge.machine_id.clone());
            out.take(item)?;
        }
        Ok(())
    }
}

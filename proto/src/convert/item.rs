//! Items of accuracy tasks.

use super::{InvalidMessage, invalid, parsed, positive};
use crate::{
    job::JobId,
    record::{
        Answer, Choice, ChoiceAnswer, EnergyFault, GeneratedAnswer, Item, ItemEnergy, ItemOrigin,
        ItemScore, RollingAnswer,
    },
    wire,
};

impl From<Item> for wire::Item {
    fn from(item: Item) -> Self {
        let Item {
            task,
            group,
            index,
            doc_hash,
            prompt_hash,
            answer,
            scores,
            elapsed_ns,
            energy,
            from_cache,
            scored_on,
        } = item;
        let mut wire = Self {
            task,
            group,
            index,
            doc_hash,
            prompt_hash,
            scores: scores.into_iter().map(Into::into).collect(),
            elapsed_ns,
            energy: energy.into_iter().map(Into::into).collect(),
            from_cache: from_cache.map(Into::into),
            scored_on,
            ..Self::default()
        };
        match answer {
            Answer::Choice(ChoiceAnswer {
                gold,
                choices,
                predicted,
                predicted_norm,
            }) => {
                wire.gold = gold;
                wire.choices = choices.into_iter().map(Into::into).collect();
                wire.predicted = predicted;
                wire.predicted_norm = predicted_norm;
            }
            Answer::Generated(GeneratedAnswer {
                text,
                target,
                n_prompt_tokens,
                n_tokens,
                end,
            }) => {
                wire.generated = Some(wire::Generated {
                    text,
                    target,
                    n_prompt_tokens,
                    n_tokens,
                    end,
                });
            }
            Answer::Rolling(RollingAnswer {
                loglikelihood,
                n_tokens,
                n_words,
                n_bytes,
            }) => {
                wire.rolling = Some(wire::Rolling {
                    loglikelihood,
                    n_tokens,
                    n_words,
                    n_bytes,
                });
            }
        }
        wire
    }
}

impl TryFrom<wire::Item> for Item {
    type Error = InvalidMessage;

    fn try_from(item: wire::Item) -> Result<Self, Self::Error> {
        let wire::Item {
            task,
            index,
            doc_hash,
            prompt_hash,
            gold,
            choices,
            predicted,
            predicted_norm,
            elapsed_ns,
            generated,
            rolling,
            scores,
            group,
            from_cache,
            scored_on,
            energy,
        } = item;
        let mut scores = scores
            .into_iter()
            .map(ItemScore::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        let answer = match (generated, rolling) {
            (None, None) => {
                let answer = choice(gold, choices, predicted, predicted_norm)?;
                // Written before scores were.
                if scores.is_empty() {
                    scores = answer.scores();
                }
                Answer::Choice(answer)
            }
            (Some(generated), None) if choices.is_empty() => {
                let wire::Generated {
                    text,
                    target,
                    n_prompt_tokens,
                    n_tokens,
                    end,
                } = generated;
                Answer::Generated(GeneratedAnswer {
                    text,
                    target,
                    n_prompt_tokens,
                    n_tokens,
                    end,
                })
            }
            (None, Some(rolling)) if choices.is_empty() => {
                let wire::Rolling {
                    loglikelihood,
                    n_tokens,
                    n_words,
                    n_bytes,
                } = rolling;
                if !loglikelihood.is_finite() {
                    let problem = format!("{loglikelihood} is no number");
                    return Err(invalid("Rolling.loglikelihood", problem));
                }
                Answer::Rolling(RollingAnswer {
                    loglikelihood,
                    n_tokens,
                    n_words,
                    n_bytes,
                })
            }
            _ => return Err(invalid("Item", "holds more than one kind of answer")),
        };
        if scores.is_empty() {
            return Err(InvalidMessage::Missing {
                field: "Item.scores",
            });
        }
        Ok(Self {
            task,
            group,
            index,
            doc_hash,
            prompt_hash,
            answer,
            scores,
            elapsed_ns,
            energy: energies(energy)?,
            from_cache: from_cache.map(ItemOrigin::try_from).transpose()?,
            scored_on,
        })
    }
}

impl From<ItemEnergy> for wire::ItemEnergy {
    fn from(energy: ItemEnergy) -> Self {
        let ItemEnergy { source, joules } = energy;
        Self { source, joules }
    }
}

fn energies(energies: Vec<wire::ItemEnergy>) -> Result<Vec<ItemEnergy>, InvalidMessage> {
    let mut known: Vec<ItemEnergy> = Vec::with_capacity(energies.len());
    for wire::ItemEnergy { source, joules } in energies {
        let energy = ItemEnergy { source, joules };
        match energy.fault(&known) {
            None => known.push(energy),
            Some(EnergyFault::NoSource) => {
                return Err(InvalidMessage::Missing {
                    field: "ItemEnergy.source",
                });
            }
            Some(EnergyFault::SourceTwice) => {
                let problem = format!("`{}` is there twice", energy.source);
                return Err(invalid("ItemEnergy.source", problem));
            }
            Some(EnergyFault::Joules) => {
                let problem = format!("{joules} is no energy");
                return Err(invalid("ItemEnergy.joules", problem));
            }
        }
    }
    Ok(known)
}

impl From<ItemOrigin> for wire::ItemOrigin {
    fn from(origin: ItemOrigin) -> Self {
        let ItemOrigin { job, attempt } = origin;
        Self {
            run_id: job.run.to_string(),
            job_index: job.index,
            attempt: attempt.get(),
        }
    }
}

impl TryFrom<wire::ItemOrigin> for ItemOrigin {
    type Error = InvalidMessage;

    fn try_from(origin: wire::ItemOrigin) -> Result<Self, Self::Error> {
        let wire::ItemOrigin {
            run_id,
            job_index,
            attempt,
        } = origin;
        Ok(Self {
            job: JobId {
                run: parsed("ItemOrigin.run_id", &run_id)?,
                index: job_index,
            },
            attempt: positive("ItemOrigin.attempt", attempt)?,
        })
    }
}

fn choice(
    gold: u32,
    choices: Vec<wire::Choice>,
    predicted: u32,
    predicted_norm: Option<u32>,
) -> Result<ChoiceAnswer, InvalidMessage> {
    let n_choices = choices.len();
    for (field, choice) in [
        ("Item.gold", Some(gold)),
        ("Item.predicted", Some(predicted)),
        ("Item.predicted_norm", predicted_norm),
    ] {
        if choice.is_some_and(|choice| choice as usize >= n_choices) {
            let problem = format!("names none of the {n_choices} choices");
            return Err(invalid(field, problem));
        }
    }
    Ok(ChoiceAnswer {
        gold,
        choices: choices.into_iter().map(Into::into).collect(),
        predicted,
        predicted_norm,
    })
}

impl From<Choice> for wire::Choice {
    fn from(choice: Choice) -> Self {
        let Choice {
            loglikelihood,
            is_greedy,
            n_tokens,
            n_chars,
        } = choice;
        Self {
            loglikelihood,
            is_greedy,
            n_tokens,
            n_chars,
        }
    }
}

impl From<wire::Choice> for Choice {
    fn from(choice: wire::Choice) -> Self {
        let wire::Choice {
            loglikelihood,
            is_greedy,
            n_tokens,
            n_chars,
        } = choice;
        Self {
            loglikelihood,
            is_greedy,
            n_tokens,
            n_chars,
        }
    }
}

impl From<ItemScore> for wire::ItemScore {
    fn from(score: ItemScore) -> Self {
        let ItemScore {
            metric,
            filter,
            value,
            extracted,
            reason,
            pending,
        } = score;
        Self {
            metric,
            filter,
            value,
            extracted,
            reason,
            pending,
        }
    }
}

impl TryFrom<wire::ItemScore> for ItemScore {
    type Error = InvalidMessage;

    fn try_from(score: wire::ItemScore) -> Result<Self, Self::Error> {
        let wire::ItemScore {
            metric,
            filter,
            value,
            extracted,
            reason,
            pending,
        } = score;
        if pending && value.is_some() {
            return Err(invalid(
                "ItemScore.value",
                "is there, but the score is pending",
            ));
        }
        if let Some(value) = value.filter(|value| !value.is_finite()) {
            return Err(invalid("ItemScore.value", format!("{value} is no number")));
        }
        Ok(Self {
            metric,
            filter,
            value,
            extracted,
            reason,
            pending,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(answer: Answer) -> Item {
        Item {
            task: "t".to_owned(),
            group: Some("anatomy".to_owned()),
            index: 3,
            doc_hash: "d".to_owned(),
            prompt_hash: "p".to_owned(),
            answer,
            scores: vec![ItemScore {
                metric: "exact_match".to_owned(),
                filter: "strict-match".to_owned(),
                value: None,
                extracted: Some("[invalid]".to_owned()),
                reason: Some("needs algebra".to_owned()),
                pending: false,
            }],
            elapsed_ns: Some(9),
            energy: vec![energy("powercap:package-0", 1.25)],
            from_cache: None,
            scored_on: None,
        }
    }

    fn energy(source: &str, joules: f64) -> ItemEnergy {
        ItemEnergy {
            source: source.to_owned(),
            joules,
        }
    }

    fn choices() -> ChoiceAnswer {
        let choice = Choice {
            loglikelihood: -1.0,
            is_greedy: true,
            n_tokens: 2,
            n_chars: 5,
        };
        ChoiceAnswer {
            gold: 1,
            choices: vec![choice; 2],
            predicted: 1,
            predicted_norm: Some(0),
        }
    }

    #[test]
    fn every_kind_of_answer_comes_back_as_it_went() {
        let generated = GeneratedAnswer {
            text: "#### 4".to_owned(),
            target: "4".to_owned(),
            n_prompt_tokens: 7,
            n_tokens: 3,
            end: "stop".to_owned(),
        };
        let rolling = RollingAnswer {
            loglikelihood: -2.5,
            n_tokens: 3,
            n_words: 2,
            n_bytes: 11,
        };
        for answer in [
            Answer::Choice(choices()),
            Answer::Generated(generated),
            Answer::Rolling(rolling),
        ] {
            let item = item(answer);
            assert_eq!(Item::try_from(wire::Item::from(item.clone())), Ok(item));
        }
    }

    #[test]
    fn a_record_without_scores_has_those_of_its_choices() {
        let mut wire = wire::Item::from(item(Answer::Choice(choices())));
        wire.scores.clear();
        let item = Item::try_from(wire).unwrap();
        assert_eq!(
            item.scores,
            [
                ItemScore::plain("acc", 1.0),
                ItemScore::plain("acc_norm", 0.0)
            ]
        );
    }

    #[test]
    fn two_kinds_of_answer_none_and_what_is_no_number_are_refused() {
        let mut both = wire::Item::from(item(Answer::Choice(choices())));
        both.generated = Some(wire::Generated::default());
        assert!(Item::try_from(both).is_err());
        let none = wire::Item {
            task: "t".to_owned(),
            ..Default::default()
        };
        assert!(Item::try_from(none).is_err());
        let mut nan = wire::Item::from(item(Answer::Choice(choices())));
        nan.scores[0].value = Some(f64::NAN);
        assert!(Item::try_from(nan).is_err());
        let mut pending = wire::Item::from(item(Answer::Choice(choices())));
        pending.scores[0].pending = true;
        assert!(Item::try_from(pending.clone()).is_ok());
        pending.scores[0].value = Some(1.0);
        assert!(Item::try_from(pending).is_err());
    }

    #[test]
    fn energy_is_a_number_from_a_counter_that_is_named_once() {
        let refused = |energy: Vec<ItemEnergy>| {
            let measured = Item {
                energy,
                ..item(Answer::Choice(choices()))
            };
            Item::try_from(wire::Item::from(measured))
                .unwrap_err()
                .to_string()
        };
        for joules in [f64::NAN, f64::INFINITY, -0.5] {
            let error = refused(vec![energy("powercap:dram-0", joules)]);
            assert!(error.contains("ItemEnergy.joules"), "{error}");
        }
        let error = refused(vec![energy("", 1.0)]);
        assert!(error.contains("ItemEnergy.source"), "{error}");
        let error = refused(vec![energy("powercap:psys", 1.0); 2]);
        assert!(error.contains("`powercap:psys` is there twice"), "{error}");
        // Of before energy was measured.
        let mut old = wire::Item::from(item(Answer::Choice(choices())));
        old.energy.clear();
        assert_eq!(Item::try_from(old).unwrap().energy, []);
    }

    proptest! {
        #[test]
        fn what_is_an_energy_comes_back_and_nothing_else_is_let_in(
            joules in prop_oneof![any::<f64>(), 0.0..1e6],
            source in "[a-z:0-9-]{0,20}",
        ) {
            let sent = vec![wire::ItemEnergy { source: source.clone(), joules }];
            let is_energy = !source.is_empty() && joules.is_finite() && joules >= 0.0;
            let read = energies(sent.clone());
            prop_assert_eq!(read.is_ok(), is_energy);
            if let Ok(read) = read {
                let back: Vec<wire::ItemEnergy> = read.into_iter().map(Into::into).collect();
                prop_assert_eq!(back, sent);
            }
        }
    }

    #[test]
    fn an_item_from_a_cache_says_whose_it_is_and_is_not_timed() {
        let run = crate::job::RunId::generate();
        let origin = ItemOrigin {
            job: JobId { run, index: 7 },
            attempt: std::num::NonZeroU32::MIN,
        };
        let cached = Item {
            elapsed_ns: None,
            energy: Vec::new(),
            from_cache: Some(origin),
            scored_on: Some("m".to_owned()),
            ..item(Answer::Choice(choices()))
        };
        let mut wire = wire::Item::from(cached.clone());
        assert_eq!(wire.elapsed_ns, None);
        assert_eq!(Item::try_from(wire.clone()), Ok(cached));
        wire.from_cache.as_mut().unwrap().attempt = 0;
        assert!(Item::try_from(wire).is_err());
        assert_eq!(origin.to_string().parse(), Ok(origin));
        assert!("x/1/1".parse::<ItemOrigin>().is_err());
        assert!(format!("{run}/1/0").parse::<ItemOrigin>().is_err());
        assert!(format!("{run}/1").parse::<ItemOrigin>().is_err());
    }
}

//! Records and what they hold.

use super::{InvalidMessage, invalid, kv, numerics, parsed, required};
use crate::{
    record::{Measurement, ModelFacts, Outcome, Reading, Record, RecordBody, TokenTimes},
    roofline::{Arithmetic, Demand},
    wire,
};

impl From<Record> for wire::Record {
    fn from(
        Record {
            sequence,
            at_unix_ns,
            body,
        }: Record,
    ) -> Self {
        use wire::record::Body;
        let body = match body {
            RecordBody::Measurement(measurement) => Body::Measurement(measurement.into()),
            RecordBody::Tokens(TokenTimes {
                workload,
                repetition,
                token_ids,
                elapsed_ns,
            }) => Body::Tokens(wire::TokenTimes {
                workload: Some(workload.into()),
                repetition,
                token_ids,
                elapsed_ns,
            }),
            RecordBody::Item(item) => Body::Item(item.into()),
            RecordBody::Facts(facts) => Body::Facts(facts.into()),
            RecordBody::Cell(cell) => Body::Cell(cell.into()),
        };
        Self {
            sequence,
            at_unix_ns,
            body: Some(body),
        }
    }
}

impl TryFrom<wire::Record> for Record {
    type Error = InvalidMessage;

    fn try_from(record: wire::Record) -> Result<Self, Self::Error> {
        use wire::record::Body;
        let wire::Record {
            sequence,
            at_unix_ns,
            body,
        } = record;
        let body = match required("Record.body", body)? {
            Body::Measurement(measurement) => RecordBody::Measurement(measurement.try_into()?),
            Body::Tokens(wire::TokenTimes {
                workload,
                repetition,
                token_ids,
                elapsed_ns,
            }) => {
                if token_ids.len() != elapsed_ns.len() {
                    let problem =
                        format!("{} tokens but {} times", token_ids.len(), elapsed_ns.len());
                    return Err(invalid("TokenTimes.elapsed_ns", problem));
                }
                RecordBody::Tokens(TokenTimes {
                    workload: required("TokenTimes.workload", workload)?.into(),
                    repetition,
                    token_ids,
                    elapsed_ns,
                })
            }
            Body::Item(item) => RecordBody::Item(item.try_into()?),
            Body::Facts(facts) => RecordBody::Facts(facts.try_into()?),
            Body::Cell(cell) => RecordBody::Cell(cell.try_into()?),
        };
        Ok(Self {
            sequence,
            at_unix_ns,
            body,
        })
    }
}

impl From<Measurement> for wire::Measurement {
    fn from(measurement: Measurement) -> Self {
        let Measurement {
            suite,
            metric,
            workload,
            phase,
            repetition,
            outcome,
        } = measurement;
        let outcome = match outcome {
            Outcome::Reading(Reading {
                value,
                grade,
                source,
            }) => {
                let grade = grade.name().to_owned();
                wire::measurement::Outcome::Reading(wire::Reading {
                    value,
                    grade,
                    source,
                })
            }
            Outcome::Skipped { reason } => wire::measurement::Outcome::SkippedReason(reason),
        };
        Self {
            suite,
            metric: metric.name().to_owned(),
            workload: workload.map(Into::into),
            phase: phase.map(|phase| phase.name().to_owned()),
            repetition,
            outcome: Some(outcome),
        }
    }
}

impl TryFrom<wire::Measurement> for Measurement {
    type Error = InvalidMessage;

    fn try_from(measurement: wire::Measurement) -> Result<Self, Self::Error> {
        let wire::Measurement {
            suite,
            metric,
            workload,
            phase,
            repetition,
            outcome,
        } = measurement;
        let outcome = match required("Measurement.outcome", outcome)? {
            wire::measurement::Outcome::Reading(wire::Reading {
                value,
                grade,
                source,
            }) => {
                if !value.is_finite() {
                    return Err(invalid("Reading.value", format!("{value} is no number")));
                }
                Outcome::Reading(Reading {
                    value,
                    grade: parsed("Reading.grade", &grade)?,
                    source,
                })
            }
            wire::measurement::Outcome::SkippedReason(reason) => Outcome::Skipped { reason },
        };
        Ok(Self {
            suite,
            metric: parsed("Measurement.metric", &metric)?,
            workload: workload.map(Into::into),
            phase: phase
                .map(|phase| parsed("Measurement.phase", &phase))
                .transpose()?,
            repetition,
            outcome,
        })
    }
}

impl From<Demand> for wire::Demand {
    fn from(demand: Demand) -> Self {
        let Demand {
            token_bytes,
            position_bytes,
            linear_ops,
            arithmetic,
        } = demand;
        Self {
            token_bytes,
            position_bytes,
            linear_ops,
            arithmetic: arithmetic.map_or_else(String::new, |kind| kind.name().to_owned()),
        }
    }
}

impl TryFrom<wire::Demand> for Demand {
    type Error = InvalidMessage;

    fn try_from(demand: wire::Demand) -> Result<Self, Self::Error> {
        let wire::Demand {
            token_bytes,
            position_bytes,
            linear_ops,
            arithmetic,
        } = demand;
        // What nothing is asked for has no bound.
        for (field, value) in [
            ("Demand.token_bytes", token_bytes),
            ("Demand.linear_ops", linear_ops),
        ] {
            if value == 0 {
                return Err(invalid(field, "is 0"));
            }
        }
        let unknown = || invalid("Demand.arithmetic", format!("unknown name `{arithmetic}`"));
        Ok(Self {
            token_bytes,
            position_bytes,
            linear_ops,
            arithmetic: match arithmetic.as_str() {
                "" => None,
                name => Some(Arithmetic::from_name(name).ok_or_else(unknown)?),
            },
        })
    }
}

impl From<ModelFacts> for wire::ModelFacts {
    fn from(facts: ModelFacts) -> Self {
        let ModelFacts {
            weights_hash,
            architecture,
            weight_format,
            head_format,
            kernel,
            lossy_kernel,
            numerics,
            kv,
            numerics_version,
            n_params,
            n_linear_params,
            file_bytes,
            weight_bytes,
            linear_weight_bytes,
            demand,
            bits_per_weight,
            logits_fingerprint,
            data_hash,
            n_items,
            warnings,
        } = facts;
        Self {
            weights_hash,
            architecture,
            weight_format,
            head_format,
            kernel,
            lossy_kernel,
            numerics: numerics.name().to_owned(),
            kv: kv.name().to_owned(),
            numerics_version,
            n_params,
            n_linear_params,
            file_bytes,
            weight_bytes,
            linear_weight_bytes,
            demand: demand.map(Into::into),
            bits_per_weight,
            logits_fingerprint,
            data_hash,
            n_items,
            warnings,
        }
    }
}

impl TryFrom<wire::ModelFacts> for ModelFacts {
    type Error = InvalidMessage;

    fn try_from(facts: wire::ModelFacts) -> Result<Self, Self::Error> {
        let wire::ModelFacts {
            weights_hash,
            architecture,
            weight_format,
            head_format,
            kernel,
            lossy_kernel,
            numerics: how,
            kv: kept,
            numerics_version,
            n_params,
            n_linear_params,
            file_bytes,
            weight_bytes,
            linear_weight_bytes,
            demand,
            bits_per_weight,
            logits_fingerprint,
            data_hash,
            n_items,
            warnings,
        } = facts;
        Ok(Self {
            weights_hash,
            architecture,
            weight_format,
            head_format,
            kernel,
            lossy_kernel,
            numerics: numerics("ModelFacts.numerics", &how)?,
            kv: kv("ModelFacts.kv", &kept)?,
            numerics_version,
            n_params,
            n_linear_params,
            file_bytes,
            weight_bytes,
            linear_weight_bytes,
            demand: demand.map(TryInto::try_into).transpose()?,
            bits_per_weight,
            logits_fingerprint,
            data_hash,
            n_items,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_a_token_asks_for_comes_back_or_is_refused(
            token_bytes in 0..3_u64,
            position_bytes in any::<u64>(),
            linear_ops in 0..3_u64,
            arithmetic in "int8|f32|int4||",
        ) {
            let facts = wire::ModelFacts {
                demand: Some(wire::Demand { token_bytes, position_bytes, linear_ops, arithmetic }),
                ..wire::ModelFacts::default()
            };
            match ModelFacts::try_from(facts.clone()) {
                Ok(read) => {
                    let json = serde_json::to_string(&read).expect("facts are plain data");
                    let again: ModelFacts = serde_json::from_str(&json).expect("they were facts");
                    prop_assert_eq!(&again, &read);
                    prop_assert_eq!(wire::ModelFacts::from(read).demand, facts.demand);
                }
                Err(error) => prop_assert!(error.to_string().contains("Demand."), "{}", error),
            }
        }
    }

    #[test]
    fn facts_of_earlier_builds_do_not_say_what_a_token_asks_for() {
        let facts = ModelFacts::try_from(wire::ModelFacts::default()).unwrap();
        assert_eq!(facts.demand, None);
        let json = serde_json::to_string(&facts).unwrap();
        assert!(!json.contains("demand"), "{json}");
        assert_eq!(serde_json::from_str::<ModelFacts>(&json).unwrap(), facts);
    }
}

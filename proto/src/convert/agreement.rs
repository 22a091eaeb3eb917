//! The agreement suite and its cells.

use std::{collections::BTreeSet, num::NonZeroU32};

use super::{InvalidMessage, invalid, positive};
use crate::{
    job::AgreementSpec,
    record::{AgreementCell, Parted},
    wire,
};

impl From<AgreementSpec> for wire::Agreement {
    fn from(
        AgreementSpec {
            n_prompts,
            max_len,
            n_gen,
            seed,
            threads,
            n_batch,
        }: AgreementSpec,
    ) -> Self {
        let numbers = |list: Vec<NonZeroU32>| list.into_iter().map(NonZeroU32::get).collect();
        Self {
            n_prompts: n_prompts.get(),
            max_len: max_len.get(),
            n_gen,
            seed,
            threads: numbers(threads),
            n_batch: numbers(n_batch),
        }
    }
}

impl TryFrom<wire::Agreement> for AgreementSpec {
    type Error = InvalidMessage;

    fn try_from(
        wire::Agreement {
            n_prompts,
            max_len,
            n_gen,
            seed,
            threads,
            n_batch,
        }: wire::Agreement,
    ) -> Result<Self, Self::Error> {
        let at_most = |field, value: u32, max: u32| {
            if value > max {
                return Err(invalid(field, format!("{value} is more than {max}")));
            }
            Ok(value)
        };
        Ok(Self {
            n_prompts: positive(
                "Agreement.n_prompts",
                at_most("Agreement.n_prompts", n_prompts, Self::MAX_PROMPTS)?,
            )?,
            max_len: positive(
                "Agreement.max_len",
                at_most("Agreement.max_len", max_len, Self::MAX_TOKENS)?,
            )?,
            n_gen: at_most("Agreement.n_gen", n_gen, Self::MAX_TOKENS)?,
            seed,
            threads: numbers("Agreement.threads", &threads, Self::MAX_THREADS)?,
            n_batch: numbers("Agreement.n_batch", &n_batch, Self::MAX_TOKENS)?,
        })
    }
}

/// Reads a list of at least one number, none of them 0 and none twice.
fn numbers(field: &'static str, list: &[u32], max: u32) -> Result<Vec<NonZeroU32>, InvalidMessage> {
    if !(1..=AgreementSpec::MAX_VALUES).contains(&list.len()) {
        return Err(invalid(field, format!("has {} numbers", list.len())));
    }
    let mut seen = BTreeSet::new();
    list.iter()
        .map(|&number| {
            if number > max || !seen.insert(number) {
                let problem = format!("{number} is more than {max} or there twice");
                return Err(invalid(field, problem));
            }
            positive(field, number)
        })
        .collect()
}

impl From<AgreementCell> for wire::AgreementCell {
    fn from(
        AgreementCell {
            kernel,
            threads,
            n_batch,
            reused_prefix,
            equal,
            positions,
            fingerprint,
            reference,
            parted,
        }: AgreementCell,
    ) -> Self {
        Self {
            kernel,
            threads: threads.get(),
            n_batch: n_batch.get(),
            reused_prefix,
            equal,
            positions,
            fingerprint,
            reference,
            parted: parted.map(Into::into),
        }
    }
}

impl TryFrom<wire::AgreementCell> for AgreementCell {
    type Error = InvalidMessage;

    fn try_from(
        wire::AgreementCell {
            kernel,
            threads,
            n_batch,
            reused_prefix,
            equal,
            positions,
            fingerprint,
            reference,
            parted,
        }: wire::AgreementCell,
    ) -> Result<Self, Self::Error> {
        let cell = Self {
            kernel,
            threads: positive("AgreementCell.threads", threads)?,
            n_batch: positive("AgreementCell.n_batch", n_batch)?,
            reused_prefix,
            equal,
            positions,
            fingerprint,
            reference,
            parted: parted.map(Into::into),
        };
        match cell.contradiction() {
            Some(problem) => Err(invalid("Record.cell", problem)),
            None => Ok(cell),
        }
    }
}

impl From<Parted> for wire::Parted {
    fn from(
        Parted {
            prompt,
            position,
            max_abs,
            kl,
            margin,
            expected,
            found,
        }: Parted,
    ) -> Self {
        Self {
            prompt,
            position,
            max_abs,
            kl,
            margin,
            expected,
            found,
        }
    }
}

impl From<wire::Parted> for Parted {
    fn from(
        wire::Parted {
            prompt,
            position,
            max_abs,
            kl,
            margin,
            expected,
            found,
        }: wire::Parted,
    ) -> Self {
        Self {
            prompt,
            position,
            max_abs,
            kl,
            margin,
            expected,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::record::{Record, RecordBody};

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 0_u32..6, 1 => 4090_u32..4100, 1 => any::<u32>()]
    }

    fn fingerprint() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just("0123456789abcdef0123456789abcdef".to_owned()),
            1 => "[0-9a-f]{32}",
            1 => "[0-9A-F]{0,33}",
        ]
    }

    fn size() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => 0.0_f64..10.0,
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
            1 => Just(-1.0),
        ]
    }

    prop_compose! {
        fn spec()(
            n_prompts in number(),
            max_len in number(),
            n_gen in number(),
            seed in any::<u64>(),
            threads in proptest::collection::vec(number(), 0..4),
            n_batch in proptest::collection::vec(number(), 0..4),
        ) -> wire::Agreement {
            wire::Agreement { n_prompts, max_len, n_gen, seed, threads, n_batch }
        }
    }

    prop_compose! {
        fn parted()(
            prompt in number(),
            position in number(),
            sizes in [size(), size(), size()],
            expected in number(),
            found in number(),
        ) -> wire::Parted {
            let [max_abs, kl, margin] = sizes;
            wire::Parted {
                prompt,
                position,
                max_abs: max_abs as f32,
                kl,
                margin: margin as f32,
                expected,
                found,
            }
        }
    }

    prop_compose! {
        fn cell()(
            threads in number(),
            n_batch in number(),
            reused_prefix in any::<bool>(),
            equal in 0_u64..4,
            positions in 0_u64..4,
            fingerprint in fingerprint(),
            reference in fingerprint(),
            parted in proptest::option::of(parted()),
        ) -> wire::AgreementCell {
            wire::AgreementCell {
                kernel: "reference".to_owned(),
                threads,
                n_batch,
                reused_prefix,
                equal,
                positions,
                fingerprint,
                reference,
                parted,
            }
        }
    }

    proptest! {
        #[test]
        fn a_spec_that_is_taken_comes_back_the_same(message in spec()) {
            let is_list = |list: &[u32], max| {
                let distinct: BTreeSet<u32> = list.iter().copied().collect();
                !list.is_empty()
                    && distinct.len() == list.len()
                    && list.iter().all(|number| (1..=max).contains(number))
            };
            let is_right = (1..=AgreementSpec::MAX_PROMPTS).contains(&message.n_prompts)
                && (1..=AgreementSpec::MAX_TOKENS).contains(&message.max_len)
                && message.n_gen <= AgreementSpec::MAX_TOKENS
                && is_list(&message.threads, AgreementSpec::MAX_THREADS)
                && is_list(&message.n_batch, AgreementSpec::MAX_TOKENS);
            match AgreementSpec::try_from(message.clone()) {
                Ok(spec) => {
                    prop_assert!(is_right);
                    let json = serde_json::to_string(&spec).unwrap();
                    prop_assert_eq!(&serde_json::from_str::<AgreementSpec>(&json).unwrap(), &spec);
                    prop_assert_eq!(wire::Agreement::from(spec), message);
                }
                Err(_) => prop_assert!(!is_right),
            }
        }

        #[test]
        fn a_cell_that_is_taken_comes_back_the_same(message in cell()) {
            let bytes = wire::Record {
                sequence: 3,
                at_unix_ns: 5,
                body: Some(wire::record::Body::Cell(message)),
            }
            .encode_to_vec();
            let decoded = wire::Record::decode(&bytes[..]).unwrap();
            if let Ok(record) = Record::try_from(decoded) {
                let RecordBody::Cell(cell) = &record.body else {
                    panic!("{record:?}");
                };
                prop_assert_eq!(cell.agrees(), cell.equal == cell.positions);
                prop_assert_eq!(cell.agrees(), cell.fingerprint == cell.reference);
                let json = serde_json::to_string(&record).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Record>(&json).unwrap().sequence, &3);
                prop_assert_eq!(wire::Record::from(record).encode_to_vec(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_a_cell_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = wire::AgreementCell::decode(&bytes[..]) {
                let _ = AgreementCell::try_from(message);
            }
            if let Ok(message) = wire::Agreement::decode(&bytes[..]) {
                let _ = AgreementSpec::try_from(message);
            }
        }
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let message = wire::Agreement {
            n_prompts: 1,
            max_len: 1,
            threads: (1..=65).collect(),
            n_batch: vec![1],
            ..wire::Agreement::default()
        };
        let refusal = AgreementSpec::try_from(message).unwrap_err().to_string();
        assert_eq!(
            refusal,
            "field `Agreement.threads` is invalid: has 65 numbers"
        );
    }
}

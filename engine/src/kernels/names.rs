//! Names of kernels: an instruction set, and how it multiplies by ternary weights.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{Kernel, available};
use crate::lookup::{Entries, Lookup, Packing};

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
struct Named {
    full: &'static str,
    /// The form a user may type.
    short: &'static str,
    /// The name of the kernel that does the work.
    isa: &'static str,
    /// `None` where it multiplies.
    lookup: Option<Lookup>,
}

macro_rules! multiplying {
    ($full:literal, $short:literal) => {
        Named {
            full: $full,
            short: $short,
            isa: $full,
            lookup: None,
        }
    };
}

macro_rules! looking_up {
    ($full:literal, $short:literal, $packing:ident, $ending:literal, $entries:ident) => {
        Named {
            full: concat!($full, $ending),
            short: concat!($short, $ending),
            isa: $full,
            lookup: Some(Lookup {
                packing: Packing::$packing,
                entries: Entries::$entries,
            }),
        }
    };
}

const NAMES: [Named; 19] = [
    multiplying!("x86_64-avx512vnni", "avx512vnni"),
    multiplying!("x86_64-avxvnni", "avxvnni"),
    multiplying!("x86_64-avx2", "avx2"),
    looking_up!("x86_64-avx2", "avx2", Tl1, "-tl1", I16),
    looking_up!("x86_64-avx2", "avx2", Tl1, "-tl1-int8", I8),
    looking_up!("x86_64-avx2", "avx2", Tl2, "-tl2", I16),
    looking_up!("x86_64-avx2", "avx2", Tl2, "-tl2-int8", I8),
    looking_up!("x86_64-avx2", "avx2", Tmac, "-tmac", I16),
    looking_up!("x86_64-avx2", "avx2", Tmac, "-tmac-int8", I8),
    multiplying!("aarch64-i8mm", "i8mm"),
    multiplying!("aarch64-dotprod", "dotprod"),
    multiplying!("aarch64-neon", "neon"),
    multiplying!("reference", "scalar"),
    looking_up!("reference", "scalar", Tl1, "-tl1", I16),
    looking_up!("reference", "scalar", Tl1, "-tl1-int8", I8),
    looking_up!("reference", "scalar", Tl2, "-tl2", I16),
    looking_up!("reference", "scalar", Tl2, "-tl2-int8", I8),
    looking_up!("reference", "scalar", Tmac, "-tmac", I16),
    looking_up!("reference", "scalar", Tmac, "-tmac-int8", I8),
];

/// Returns the names of all kernels that this machine can run, the best of those that multiply
/// first; those that look up come behind the kernel of their instruction set.
pub fn names() -> impl Iterator<Item = &'static str> {
    let available = available();
    NAMES
        .into_iter()
        .filter(move |named| available.iter().any(|kernel| kernel.name() == named.isa))
        .map(|named| named.full)
}

/// Why a kernel cannot be had.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KernelError {
    /// No kernel has this name on any machine.
    #[error("no kernel is called `{name}` (there are auto, {})", NAMES.map(|named| named.full).join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The kernel exists, for other CPUs.
    #[error("this CPU cannot run the kernel `{name}`")]
    Unsupported {
        /// The kernel's name.
        name: String,
    },
}

/// Which kernel an engine shall run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The best this CPU can run.
    #[default]
    Auto,
    /// The one with this full name.
    Named(&'static str),
}

impl KernelChoice {
    /// Returns the kernel meant.
    pub fn kernel(&self) -> Result<Box<dyn Kernel>, KernelError> {
        let Self::Named(name) = self else {
            return Ok(available().swap_remove(0));
        };
        let named = find(name)?;
        available()
            .into_iter()
            .find(|kernel| kernel.name() == named.isa)
            .ok_or_else(|| KernelError::Unsupported {
                name: named.full.to_owned(),
            })
    }

    /// Returns how the kernel looks up ternary products, `None` if it multiplies.
    pub fn lookup(&self) -> Result<Option<Lookup>, KernelError> {
        match self {
            Self::Auto => Ok(None),
            Self::Named(name) => find(name).map(|named| named.lookup),
        }
    }

    /// Returns whether the kernel gives the logits of all others, to the bit.
    pub fn is_lossless(&self) -> Result<bool, KernelError> {
        let lookup = self.lookup()?;
        Ok(lookup.is_none_or(Lookup::is_lossless))
    }

    /// Returns the name of the kernel meant.
    pub fn full_name(&self) -> Result<&'static str, KernelError> {
        match self {
            Self::Auto => Ok(available().swap_remove(0).name()),
            Self::Named(name) => find(name).map(|named| named.full),
        }
    }
}

/// Finds a kernel by either of its names.
fn find(name: &str) -> Result<Named, KernelError> {
    NAMES
        .into_iter()
        .find(|named| name == named.full || name == named.short)
        .ok_or_else(|| KernelError::Unknown {
            name: name.to_owned(),
        })
}

impl FromStr for KernelChoice {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        if name == "auto" {
            return Ok(Self::Auto);
        }
        find(name).map(|named| Self::Named(named.full))
    }
}

impl fmt::Display for KernelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Named(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_long_and_short_lead_to_kernels() {
        for name in names() {
            let choice: KernelChoice = name.parse().unwrap();
            assert_eq!(choice.full_name().unwrap(), name);
            assert!(name.starts_with(choice.kernel().unwrap().name()));
        }
        for kernel in available() {
            let choice = KernelChoice::Named(kernel.name());
            assert_eq!(choice.kernel().unwrap().name(), kernel.name());
            assert_eq!(choice.lookup(), Ok(None));
            assert!(names().any(|name| name == kernel.name()));
        }
        assert_eq!(available().last().unwrap().name(), "reference");
        assert_eq!("scalar".parse(), Ok(KernelChoice::Named("reference")));
        assert_eq!("auto".parse(), Ok(KernelChoice::Auto));
        assert_eq!("avx2".parse(), Ok(KernelChoice::Named("x86_64-avx2")));
        assert_eq!("i8mm".parse(), Ok(KernelChoice::Named("aarch64-i8mm")));
        let unknown = "sse2".parse::<KernelChoice>().unwrap_err().to_string();
        assert!(unknown.starts_with("no kernel is called `sse2`"));
        for named in NAMES {
            assert!(unknown.contains(named.full), "{}", named.full);
        }
        let auto = KernelChoice::Auto;
        assert_eq!(auto.kernel().unwrap().name(), available()[0].name());
        assert_eq!(auto.full_name(), Ok(available()[0].name()));
        let foreign = if cfg!(target_arch = "x86_64") {
            "aarch64-neon"
        } else {
            "x86_64-avx2-tl1"
        };
        assert_eq!(
            KernelChoice::Named(foreign)
                .kernel()
                .unwrap_err()
                .to_string(),
            format!("this CPU cannot run the kernel `{foreign}`")
        );
    }

    #[test]
    fn names_say_how_a_product_is_looked_up_and_whether_it_is_exact() {
        for named in NAMES {
            let choice = KernelChoice::Named(named.full);
            let lookup = choice.lookup().unwrap();
            let words: Vec<_> = named.full.split('-').collect();
            let packing = Packing::ALL
                .into_iter()
                .find(|packing| words.contains(&packing.name()));
            assert_eq!(lookup.map(|lookup| lookup.packing), packing);
            assert_eq!(choice.is_lossless(), Ok(!words.contains(&"int8")));
        }
    }
}

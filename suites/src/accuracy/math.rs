//! placeholder until the module is there; never committed
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Equality {
    Equal,
    Different,
    Undecided { reason: String },
}
pub fn answer(_: &str) -> Option<String> {
    None
}
pub fn equal(a: &str, b: &str) -> Equality {
    if a == b {
        Equality::Equal
    } else {
        Equality::Undecided {
            reason: String::new(),
        }
    }
}

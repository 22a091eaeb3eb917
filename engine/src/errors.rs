//! An error in one line, with its causes.

use std::error::Error;

/// Returns an error's text and its causes', joined by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use super::*;
    use crate::load::LoadError;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let source = io::Error::other("the disk is gone");
        assert_eq!(chain(&source), "the disk is gone");
        let path = PathBuf::from("m.gguf");
        let error = LoadError::Open { path, source };
        assert_eq!(chain(&error), format!("{error}: the disk is gone"));
    }
}

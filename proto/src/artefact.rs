//! Files by what is in them: how models and data get to machines that do not have them.
//!
//! What travels are hashes and plain names. A [`FileName`] cannot lead out of the folder it is put
//! in, and a [`FileSet`] cannot name one twice, whoever sent them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most files of one set. A large model has some two hundred shards.
pub const MAX_FILES: usize = 512;

/// Largest file, bytes: a model of 70 billion parameters in f32 fits.
pub const MAX_FILE_BYTES: u64 = 512 << 30;

/// Most bytes of one message's data.
pub const MAX_PIECE_BYTES: usize = 1 << 20;

/// blake3 of a file's bytes. Its text is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 32]);

/// Why something is no hash or no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoArtefact(String);

impl ContentHash {
    /// Returns the hash of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Returns its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl TryFrom<&[u8]> for ContentHash {
    type Error = NoArtefact;

    fn try_from(bytes: &[u8]) -> Result<Self, NoArtefact> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| NoArtefact(format!("{} bytes are no hash of 32", bytes.len())))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = NoArtefact;

    fn from_str(text: &str) -> Result<Self, NoArtefact> {
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match blake3::Hash::from_hex(text) {
            Ok(hash) if is_lower => Ok(hash.into()),
            _ => Err(NoArtefact(format!(
                "`{}` is no hash of 64 hexadecimal digits",
                short(text)
            ))),
        }
    }
}

impl TryFrom<String> for ContentHash {
    type Error = NoArtefact;

    fn try_from(text: String) -> Result<Self, NoArtefact> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

/// One plain name: 1 to 255 bytes without separators and control characters, not beginning with a
/// dot. Put behind a folder it names something in that folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FileName {
    type Error = NoArtefact;

    fn try_from(name: String) -> Result<Self, NoArtefact> {
        let is_separator = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
        let problem = if name.is_empty() {
            "is empty"
        } else if name.len() > 255 {
            "is longer than 255 bytes"
        } else if name.starts_with('.') {
            "begins with a dot"
        } else if name.contains(is_separator) {
            "is no plain name"
        } else {
            return Ok(Self(name));
        };
        Err(NoArtefact(format!(
            "the file name `{}` {problem}",
            short(&name)
        )))
    }
}

impl FromStr for FileName {
    type Err = NoArtefact;

    fn from_str(name: &str) -> Result<Self, NoArtefact> {
        name.to_owned().try_into()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

/// Returns the beginning of a text of any length, fit for one line.
fn short(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamedFile {
    /// Its name in the set's folder.
    pub name: FileName,
    /// What is in it.
    pub hash: ContentHash,
    /// How much that is.
    pub size_bytes: u64,
}

/// Files of one folder, or the one file that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct FileSet {
    name: FileName,
    single: bool,
    files: Vec<NamedFile>,
}

#[derive(Deserialize)]
struct Unchecked {
    name: FileName,
    single: bool,
    files: Vec<NamedFile>,
}

impl TryFrom<Unchecked> for FileSet {
    type Error = NoArtefact;

    fn try_from(unchecked: Unchecked) -> Result<Self, NoArtefact> {
        let Unchecked {
            name,
            single,
            files,
        } = unchecked;
        Self::new(name, single, files)
    }
}

impl FileSet {
    /// Puts a set together.
    ///
    /// # Errors
    /// There is no file or there are more than [`MAX_FILES`], one is larger than [`MAX_FILE_BYTES`],
    /// the names are not sorted or one is there twice, or a single file is not single.
    pub fn new(name: FileName, single: bool, files: Vec<NamedFile>) -> Result<Self, NoArtefact> {
        let refuse = |problem: String| Err(NoArtefact(format!("the files of `{name}`: {problem}")));
        match files.len() {
            0 => return refuse("there is none".to_owned()),
            n if n > MAX_FILES => {
                return refuse(format!("there are {n}, at most {MAX_FILES} are taken"));
            }
            n if n > 1 && single => return refuse(format!("there are {n} instead of one")),
            _ => {}
        }
        if let Some(file) = files.iter().find(|file| file.size_bytes > MAX_FILE_BYTES) {
            return refuse(format!(
                "{} has {} bytes, at most {MAX_FILE_BYTES} are taken",
                file.name, file.size_bytes
            ));
        }
        if let Some(pair) = files.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            return refuse(format!("{} is twice there or not sorted", pair[1].name));
        }
        Ok(Self {
            name,
            single,
            files,
        })
    }

    /// Returns the name of the folder that the files lie in.
    pub fn name(&self) -> &FileName {
        &self.name
    }

    /// Returns the file that is meant, where it is not the whole folder.
    pub fn single(&self) -> Option<&NamedFile> {
        self.files.first().filter(|_| self.single)
    }

    /// Returns the files, sorted by name.
    pub fn files(&self) -> &[NamedFile] {
        &self.files
    }

    /// Returns the sum of their sizes.
    pub fn size_bytes(&self) -> u64 {
        // 512 files of 512 GiB are far below what a u64 holds.
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// A name for people: `bitnet.gguf (blake3 0123456789abcdef…)`, of a folder with the hash over its
/// files' names and hashes.
impl fmt::Display for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hash) = if let Some(file) = self.single() {
            (&file.name, file.hash.to_string())
        } else {
            let mut hasher = blake3::Hasher::new();
            for NamedFile { name, hash, .. } in &self.files {
                hasher.update(&(name.as_str().len() as u64).to_le_bytes());
                hasher.update(name.as_str().as_bytes());
                hasher.update(hash.as_bytes());
            }
            (&self.name, hasher.finalize().to_hex().to_string())
        };
        write!(f, "{name} (blake3 {}…)", &hash[..16])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> NamedFile {
        NamedFile {
            name: name.parse().unwrap(),
            hash: ContentHash::of(name.as_bytes()),
            size_bytes: 1,
        }
    }

    fn set(single: bool, names: &[&str]) -> Result<FileSet, NoArtefact> {
        let files = names.iter().map(|name| file(name)).collect();
        FileSet::new("m".parse().unwrap(), single, files)
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in [
            "", ".", "..", ".hidden", "a/b", "/etc", "../x", "a\\b", "a\0b", "a\nb", "C:x",
        ] {
            let refusal = FileName::from_str(name).unwrap_err().to_string();
            assert!(refusal.starts_with("the file name `"), "{refusal}");
            assert!(!refusal.contains('\n'));
        }
        assert!(FileName::from_str(&"x".repeat(256)).is_err());
        for name in ["model.safetensors", "a b", "ü", "-", &"x".repeat(255)] {
            assert_eq!(FileName::from_str(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_set_has_files_each_once_and_in_order() {
        assert!(set(false, &["a", "b"]).is_ok() && set(true, &["a"]).is_ok());
        for (single, names, problem) in [
            (false, &[][..], "there is none"),
            (true, &["a", "b"], "2 instead of one"),
            (false, &["b", "a"], "not sorted"),
            (false, &["a", "a"], "twice"),
        ] {
            let refusal = set(single, names).unwrap_err().to_string();
            assert!(refusal.contains(problem), "{refusal}");
        }
        let mut large = file("a");
        large.size_bytes = MAX_FILE_BYTES + 1;
        let refusal = FileSet::new("m".parse().unwrap(), true, vec![large]).unwrap_err();
        assert!(refusal.to_string().contains("at most"), "{refusal}");
        let many = (0..=MAX_FILES).map(|n| file(&format!("{n:04}"))).collect();
        let refusal = FileSet::new("m".parse().unwrap(), false, many).unwrap_err();
        assert!(refusal.to_string().contains("there are 513"), "{refusal}");
    }

    #[test]
    fn json_is_checked_as_messages_are() {
        let set = set(false, &["a", "b"]).unwrap();
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<FileSet>(&json).unwrap(), set);
        let evil = json.replace("\"a\"", "\"../a\"");
        let refusal = serde_json::from_str::<FileSet>(&evil).unwrap_err();
        assert!(refusal.to_string().contains("`../a`"), "{refusal}");
    }

    #[test]
    fn sets_of_other_contents_have_other_names_for_people() {
        let one = set(false, &["a", "b"]).unwrap();
        let other = set(false, &["a", "c"]).unwrap();
        assert!(one.to_string().starts_with("m (blake3 "), "{one}");
        assert_ne!(one.to_string(), other.to_string());
    }

    proptest! {
        #[test]
        fn any_text_that_is_a_name_stays_in_its_folder(text in any::<String>()) {
            if let Ok(name) = FileName::from_str(&text) {
                let path = std::path::Path::new("/folder").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/folder")));
                prop_assert_eq!(path.file_name(), Some(text.as_ref()));
            }
        }

        #[test]
        fn a_hash_is_read_as_it_is_written(bytes in any::<[u8; 32]>(), text in "[0-9a-fA-F]{0,70}") {
            let hash = ContentHash::try_from(&bytes[..]).unwrap();
            prop_assert_eq!(hash.to_string().parse::<ContentHash>(), Ok(hash));
            if let Ok(read) = text.parse::<ContentHash>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}

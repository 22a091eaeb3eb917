//! Typed access to JSON objects; errors name the key with its path.

use serde_json::{Map, Value};

use crate::config::ConfigError;

/// Parses a whole document. Nesting is limited by the parser.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ConfigError> {
    serde_json::from_slice(bytes).map_err(ConfigError::Json)
}

/// An object and the path to it. A key whose value is null counts as missing.
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Object<'a> {
    pub(super) fn root(value: &'a Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(map) => Ok(Self {
                map,
                path: String::new(),
            }),
            other => Err(ConfigError::Type {
                key: "(the document)".into(),
                expected: "an object",
                found: type_name(other).into(),
            }),
        }
    }

    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Returns the keys in the document's order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(ConfigError::Type {
                key: self.full(key),
                expected,
                found: describe(value),
            }),
        }
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| ConfigError::Missing {
            key: self.full(key),
        })
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a non-negative integer", |value| {
            value.as_u64().and_then(|size| size.try_into().ok())
        })
    }

    pub(super) fn need_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.need(key, self.size(key)?)
    }

    pub(super) fn f32(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        Ok(self.f64(key)?.map(|x| x as f32))
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(super) fn need_f32(&self, key: &str) -> Result<f32, ConfigError> {
        self.need(key, self.f32(key)?)
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "a bool", Value::as_bool)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(key, "a string", Value::as_str)
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        self.typed(key, "an array of strings", |value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// Reads one token id or a list of them.
    pub(super) fn ids(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, ConfigError> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self {
            map,
            path: format!("{}.", self.full(key)),
        }))
    }

    pub(super) fn need_object(&self, key: &str) -> Result<&'a Map<String, Value>, ConfigError> {
        let object = self.need(key, self.object(key)?)?;
        Ok(object.map)
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The type, and the value where it is short.
fn describe(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("the number {number}"),
        other => type_name(other).to_owned(),
    }
}

//! [`ActionKey`]: everything that decides an action's outputs, and [`ActionResult`]: what they were.
//!
//! The key is hashed as canonical JSON and also stored as that JSON, so that an explanation reads
//! the very bytes that were hashed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Artifact, Digest};

/// The BLAKE3 `derive_key` context of an action's key.
pub const KEY_CONTEXT: &str = "quantmill 2026 action key v1";

/// Everything that decides an action's outputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionKey {
    /// The stage's kind.
    pub stage: String,
    /// The kind's version.
    pub version: u32,
    /// Parameters with the defaults filled in.
    pub params: Value,
    /// Inputs by port.
    pub inputs: BTreeMap<String, Artifact>,
    /// The item, where the stage maps over items: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// The seed, where the stage uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The device, where it changes bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Declared environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of secrets that it sees, in order. Their values count for nothing: a new token is no
    /// new experiment, and a digest of a secret would tell it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

impl ActionKey {
    /// Canonical JSON: no white space, the names of every object in byte order.
    pub fn json(&self) -> String {
        let mut out = String::new();
        // A struct of strings, numbers and maps with string keys always converts.
        canonical(&serde_json::to_value(self).unwrap_or_default(), &mut out);
        out
    }

    /// The key's digest.
    pub fn digest(&self) -> Digest {
        Digest::derive(KEY_CONTEXT, self.json().as_bytes())
    }
}

/// Sorted here rather than left to serde_json: any dependency may switch on `preserve_order`.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (i, (name, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, value) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// What an action gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    /// Its outputs by name.
    pub outputs: BTreeMap<String, Artifact>,
    /// Numbers it reported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Warnings it gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Milliseconds it took.
    pub millis: u64,
    /// It was kept to what it declares: the key holds all that it read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confined: bool,
    /// Of a stage that maps over items: for each output a blob that says which item wrote each file
    /// of it, as 32-bit little-endian places in the order of the items, in the order of the files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, Digest>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> ActionKey {
        ActionKey {
            stage: "train".into(),
            version: 1,
            params: json!({ "b": [1, 2.5, null], "a": { "z": true, "y": "\"x\"" } }),
            inputs: BTreeMap::from([("corpus".into(), Artifact::File(Digest::of(b"corpus")))]),
            item: None,
            seed: Some(7),
            device: Some("cpu".into()),
            env: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }

    #[test]
    fn the_json_is_canonical() {
        let digest = Digest::of(b"corpus");
        assert_eq!(
            key().json(),
            format!(
                r#"{{"device":"cpu","inputs":{{"corpus":"file:{digest}"}},"params":{{"a":{{"y":"\"x\"","z":true}},"b":[1,2.5,null]}},"seed":7,"stage":"train","version":1}}"#
            )
        );
    }

    #[test]
    fn what_is_read_back_is_the_same_key() {
        let numbers = [f64::from(0.999f32), 0.9073038322028689, 5e-324, 1e-4, 1.0, 1e300];
        let key = ActionKey { params: json!({ "numbers": numbers }), ..key() };
        let read: ActionKey = serde_json::from_str(&key.json()).unwrap();
        assert_eq!((read.digest(), &read), (key.digest(), &key));
    }

    #[test]
    fn the_digest_is_golden() {
        // A change here invalidates every cache there is: do it on purpose, with a new context.
        assert_eq!(
            key().digest().to_string(),
            "d2cec641e8f4719fb2c87283004207481f35f98cda3203adb905501c512b7ac7"
        );
    }

    #[test]
    fn every_field_counts() {
        let base = key().digest();
        let changes: [fn(&mut ActionKey); 8] = [
            |k| k.stage = "x".into(),
            |k| k.version = 2,
            |k| k.params["a"]["z"] = json!(false),
            |k| {
                k.inputs =
                    BTreeMap::from([("corpus".into(), Artifact::Tree(Digest::of(b"corpus")))])
            },
            |k| k.item = Some("a.pdf".into()),
            |k| k.seed = None,
            |k| k.env = BTreeMap::from([("A".into(), "1".into())]),
            |k| k.secrets = vec!["TOKEN".into()],
        ];
        for change in changes {
            let mut changed = key();
            change(&mut changed);
            assert_ne!(changed.digest(), base);
        }
    }
}

//! The fields of a canonical value, by their shape. The document was checked: a field of another shape is as good as absent.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;

use crate::compose::values;
use crate::model::Bytes;

pub(super) fn section<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

pub(super) fn elements<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

pub(super) fn owned(value: &Value, key: &str) -> Option<String> {
    text(value, key).map(str::to_owned)
}

pub(super) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool) == Some(true)
}

pub(super) fn list_of(value: &Value, key: &str) -> Vec<String> {
    elements(value, key).filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn strings(value: &Value, key: &str) -> BTreeMap<String, String> {
    section(value, key).map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
}

pub(super) fn variables(value: &Value, key: &str) -> IndexMap<String, Option<String>> {
    section(value, key).map(|(key, value)| (key.to_owned(), value.as_str().map(str::to_owned))).collect()
}

pub(super) fn words(value: &Value, key: &str) -> Option<Vec<String>> {
    value.get(key)?.as_array().map(|_| list_of(value, key))
}

pub(super) fn time(value: &Value, key: &str) -> Option<Duration> {
    values::duration(text(value, key)?).ok().map(nanoseconds)
}

pub(super) fn nanoseconds(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

pub(super) fn size(value: Option<&Value>) -> Option<Bytes> {
    value?.as_str()?.parse().ok().map(Bytes)
}

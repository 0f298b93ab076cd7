//! Where `wasi:keyvalue` keeps its values: in memory, shared by the replicas of a service for as long as the supervisor lives,
//! or in a Redis that the guest's own network reaches.
//!
//! The default bucket (`""`, `default`) has keys as they are; any other name is a bucket of its own, in Redis as the prefix
//! `<name>:`. What a guest can store in memory is bounded, since it is not the guest's own.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::redis::Redis;

/// Bytes of keys and values that the replicas of one service keep in memory.
const MEMORY: usize = 64 << 20;
/// What an entry costs beside its bytes.
const ENTRY: usize = 64;
/// Longest name of a bucket or key.
const NAME: usize = 4096;
/// Keys in one answer of `list-keys`.
const PAGE: usize = 1000;

/// Why an operation failed, in the interface's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no such bucket.
    NoSuchStore,
    /// The network refused it, or the bucket is not the guest's to open.
    AccessDenied,
    /// Anything else.
    Other(String),
}

/// A service's store. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process.
    Memory(Arc<Memory>),
    /// In a Redis.
    Redis(Arc<Redis>),
}

/// An open bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Store,
    /// Before each key.
    prefix: String,
}

/// Values in memory.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    values: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Store {
    /// Opens a bucket; each name is one.
    pub fn open(&self, name: &str) -> Result<Bucket, Fault> {
        if name.len() > NAME {
            return Err(Fault::NoSuchStore);
        }
        let name = if name == "default" { "" } else { name };
        let prefix = match self {
            // No name and key together read as another's.
            Self::Memory(_) => format!("{}:{name}:", name.len()),
            Self::Redis(_) if name.is_empty() => String::new(),
            Self::Redis(_) => format!("{name}:"),
        };
        Ok(Bucket { store: self.clone(), prefix })
    }
}

impl Bucket {
    fn key(&self, key: &str) -> Result<String, Fault> {
        if key.len() > NAME {
            return Err(Fault::Other(format!("a key of {} bytes is too long: {NAME} are the most", key.len())));
        }
        Ok(format!("{}{key}", self.prefix))
    }

    /// The value of a key.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        let values = self.get_many(&[key.to_owned()]).await?;
        Ok(values.into_iter().next().flatten())
    }

    /// The values of some keys, in their order.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let keys = keys.iter().map(|key| self.key(key)).collect::<Result<Vec<_>, _>>()?;
        match &self.store {
            Store::Memory(memory) => {
                let content = memory.lock();
                Ok(keys.iter().map(|key| content.values.get(key).cloned()).collect())
            }
            Store::Redis(redis) => redis.get(&keys).await,
        }
    }

    /// Sets all, or none.
    pub async fn set_many(&self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Fault> {
        let pairs =
            pairs.into_iter().map(|(key, value)| Ok((self.key(&key)?, value))).collect::<Result<Vec<_>, _>>()?;
        match &self.store {
            Store::Memory(memory) => memory.lock().set(pairs),
            Store::Redis(redis) => redis.set(pairs).await,
        }
    }

    /// Removes keys; one that is not there is no fault.
    pub async fn delete_many(&self, keys: Vec<String>) -> Result<(), Fault> {
        let keys = keys.iter().map(|key| self.key(key)).collect::<Result<Vec<_>, _>>()?;
        match &self.store {
            Store::Memory(memory) => {
                let mut content = memory.lock();
                keys.iter().for_each(|key| content.remove(key));
                Ok(())
            }
            Store::Redis(redis) => redis.delete(&keys).await,
        }
    }

    /// Whether a key is there.
    pub async fn exists(&self, key: &str) -> Result<bool, Fault> {
        let key = self.key(key)?;
        match &self.store {
            Store::Memory(memory) => Ok(memory.lock().values.contains_key(&key)),
            Store::Redis(redis) => redis.exists(&key).await,
        }
    }

    /// Some keys, and where to go on.
    pub async fn keys(&self, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>), Fault> {
        let (keys, next) = match &self.store {
            Store::Memory(memory) => memory.lock().page(&self.prefix, cursor.unwrap_or(0)),
            Store::Redis(redis) => redis.keys(&self.prefix, cursor.unwrap_or(0)).await?,
        };
        let bare = |key: String| key.strip_prefix(&self.prefix).map(str::to_owned);
        Ok((keys.into_iter().filter_map(bare).collect(), next))
    }

    /// Adds to a number written in decimal digits; one that is not there is 0.
    pub async fn increment(&self, key: &str, delta: u64) -> Result<u64, Fault> {
        let key = self.key(key)?;
        match &self.store {
            Store::Memory(memory) => memory.lock().increment(key, delta),
            Store::Redis(redis) => redis.increment(&key, delta).await,
        }
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    ENTRY + key.len() + value.len()
}

impl Content {
    fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            self.bytes -= cost(key, &value);
        }
    }

    fn set(&mut self, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Fault> {
        // The last of a key counts; what it replaces is given back.
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        let added: usize = pairs.iter().map(|(key, value)| cost(key, value)).sum();
        let replaced = |key: &String| self.values.get(key).map_or(0, |value| cost(key, value));
        let freed: usize = pairs.keys().map(replaced).sum();
        if self.bytes - freed + added > MEMORY {
            return Err(Fault::Other(format!(
                "the store in memory is full: {} MiB are the most; `x-wasm.keyvalue` names a larger one",
                MEMORY >> 20
            )));
        }
        self.bytes = self.bytes - freed + added;
        self.values.extend(pairs);
        Ok(())
    }

    /// A cursor is the number of keys that were told.
    fn page(&self, prefix: &str, cursor: u64) -> (Vec<String>, Option<u64>) {
        let told = usize::try_from(cursor).unwrap_or(usize::MAX);
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let rest = self.values.range::<str, _>(from).map(|(key, _)| key);
        let mut rest = rest.take_while(|key| key.starts_with(prefix)).skip(told);
        let keys: Vec<String> = rest.by_ref().take(PAGE).cloned().collect();
        let next = rest.next().map(|_| cursor + keys.len() as u64);
        (keys, next)
    }

    fn increment(&mut self, key: String, delta: u64) -> Result<u64, Fault> {
        let number = match self.values.get(&key) {
            None => 0,
            Some(value) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| Fault::Other(format!("the value of `{key}` is no number")))?,
        };
        let sum = number.checked_add(delta).ok_or_else(|| Fault::Other("the number would be too large".into()))?;
        self.set(vec![(key, sum.to_string().into_bytes())])?;
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store::Memory(Arc::default())
    }

    #[tokio::test]
    async fn buckets_do_not_share_keys_and_replicas_share_buckets() {
        let store = store();
        let (one, two) = (store.open("").unwrap(), store.open("two").unwrap());
        one.set_many(vec![("a".into(), b"1".to_vec())]).await.unwrap();
        assert_eq!(one.keys(None).await, Ok((vec!["a".into()], None)));
        assert_eq!(two.get("a").await, Ok(None));
        assert_eq!(store.clone().open("default").unwrap().get("a").await, Ok(Some(b"1".to_vec())));
        two.set_many(vec![("a".into(), b"2".to_vec()), ("b".into(), b"3".to_vec())]).await.unwrap();
        assert_eq!(two.keys(None).await, Ok((vec!["a".into(), "b".into()], None)));
        two.delete_many(vec!["a".into(), "gone".into()]).await.unwrap();
        assert_eq!((two.exists("a").await, one.exists("a").await), (Ok(false), Ok(true)));
    }

    #[tokio::test]
    async fn numbers_are_added_and_nothing_else() {
        let bucket = store().open("").unwrap();
        assert_eq!(bucket.increment("n", 5).await, Ok(5));
        assert_eq!(bucket.increment("n", 2).await, Ok(7));
        assert!(bucket.increment("n", u64::MAX).await.is_err());
        bucket.set_many(vec![("n".into(), b"text".to_vec())]).await.unwrap();
        assert!(bucket.increment("n", 1).await.is_err());
    }

    #[tokio::test]
    async fn keys_come_in_pages() {
        let bucket = store().open("b").unwrap();
        let pairs = (0..PAGE + 1).map(|number| (format!("{number:05}"), Vec::new())).collect();
        bucket.set_many(pairs).await.unwrap();
        let (first, next) = bucket.keys(None).await.unwrap();
        assert_eq!((first.len(), next), (PAGE, Some(PAGE as u64)));
        assert_eq!(bucket.keys(next).await, Ok((vec![format!("{PAGE:05}")], None)));
        assert_eq!(bucket.keys(Some(u64::MAX)).await, Ok((Vec::new(), None)));
    }

    #[tokio::test]
    async fn a_full_store_takes_nothing_more_and_gives_room_back() {
        let bucket = store().open("").unwrap();
        bucket.set_many(vec![("big".into(), vec![0; MEMORY - 1000])]).await.unwrap();
        assert!(bucket.set_many(vec![("more".into(), vec![0; 1000])]).await.is_err());
        assert_eq!(bucket.exists("more").await, Ok(false));
        bucket.set_many(vec![("big".into(), vec![0; 10])]).await.unwrap();
        bucket.set_many(vec![("more".into(), vec![0; 1000])]).await.unwrap();
        assert!(bucket.get(&"k".repeat(NAME + 1)).await.is_err());
    }
}

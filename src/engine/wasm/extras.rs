//! Interfaces that are no part of WASI's releases but that guests are written for: `wasi:config`, `wasi:logging` and
//! `wasi:keyvalue`, each in the one version there is.
//!
//! What a store holds and where is [`keyvalue`]'s; here are the words of the interfaces alone.

pub mod keyvalue;
pub mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use self::keyvalue::{Bucket, Fault, Store};
use super::host::State;
use super::output::Output;
use crate::engine::Stream;
use generated::wasi;
use wasi::logging::logging::Level;

mod generated {
    wasmtime::component::bindgen!({
        path: "src/engine/wasm/wit",
        world: "wcompose:extras/extras",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::keyvalue::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::keyvalue::Fault },
    });
}

/// What an instance's guests are given of these. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Extras {
    /// `x-wasm.config`.
    pub config: Arc<BTreeMap<String, String>>,
    /// Where its buckets are.
    pub store: Store,
    /// The buckets it may open; absent means any.
    pub stores: Option<Arc<[String]>>,
    /// Where its log lines go.
    pub output: Output,
}

/// What the methods work on.
pub struct View<'a> {
    /// What the instance was given.
    pub extras: &'a Extras,
    /// Where buckets are held.
    pub table: &'a mut ResourceTable,
}

/// Names [`View`] for the linker.
struct Extra;

impl HasData for Extra {
    type Data<'a> = View<'a>;
}

/// Adds all of them to a linker.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::config::store::add_to_linker::<State, Extra>(linker, State::extras)?;
    wasi::keyvalue::store::add_to_linker::<State, Extra>(linker, State::extras)?;
    wasi::keyvalue::atomics::add_to_linker::<State, Extra>(linker, State::extras)?;
    wasi::keyvalue::batch::add_to_linker::<State, Extra>(linker, State::extras)?;
    wasi::logging::logging::add_to_linker::<State, Extra>(linker, State::extras)
}

impl wasi::config::store::Host for View<'_> {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, wasi::config::store::Error>> {
        Ok(Ok(self.extras.config.get(&key).cloned()))
    }

    async fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, wasi::config::store::Error>> {
        Ok(Ok(self.extras.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}

impl wasi::logging::logging::Host for View<'_> {
    /// A line of the service's log for each line of the message: warnings and worse where errors go.
    async fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let (word, stream) = match level {
            Level::Trace => ("TRACE", Stream::Stdout),
            Level::Debug => ("DEBUG", Stream::Stdout),
            Level::Info => ("INFO", Stream::Stdout),
            Level::Warn => ("WARN", Stream::Stderr),
            Level::Error => ("ERROR", Stream::Stderr),
            Level::Critical => ("CRITICAL", Stream::Stderr),
        };
        let context = if context.is_empty() { String::new() } else { format!(" {context}:") };
        for line in message.lines() {
            self.extras.output.say(stream, &format!("{word}{context} {line}")).await;
        }
        Ok(())
    }
}

impl View<'_> {
    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<Bucket, Fault> {
        self.table.get(bucket).cloned().map_err(|error| Fault::Other(error.to_string()))
    }
}

impl wasi::keyvalue::store::Host for View<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Fault> {
        if self.extras.stores.as_ref().is_some_and(|stores| !stores.contains(&identifier)) {
            return Err(Fault::AccessDenied);
        }
        let bucket = self.extras.store.open(&identifier)?;
        self.table.push(bucket).map_err(|error| Fault::Other(error.to_string()))
    }

    fn convert_error(&mut self, fault: Fault) -> wasmtime::Result<wasi::keyvalue::store::Error> {
        Ok(match fault {
            Fault::NoSuchStore => wasi::keyvalue::store::Error::NoSuchStore,
            Fault::AccessDenied => wasi::keyvalue::store::Error::AccessDenied,
            Fault::Other(why) => wasi::keyvalue::store::Error::Other(why),
        })
    }
}

impl wasi::keyvalue::store::HostBucket for View<'_> {
    async fn get(&mut self, this: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Fault> {
        self.bucket(&this)?.get(&key).await
    }

    async fn set(&mut self, this: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Fault> {
        self.bucket(&this)?.set_many(vec![(key, value)]).await
    }

    async fn delete(&mut self, this: Resource<Bucket>, key: String) -> Result<(), Fault> {
        self.bucket(&this)?.delete_many(vec![key]).await
    }

    async fn exists(&mut self, this: Resource<Bucket>, key: String) -> Result<bool, Fault> {
        self.bucket(&this)?.exists(&key).await
    }

    async fn list_keys(
        &mut self,
        this: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<wasi::keyvalue::store::KeyResponse, Fault> {
        let (keys, cursor) = self.bucket(&this)?.keys(cursor).await?;
        Ok(wasi::keyvalue::store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wasi::keyvalue::atomics::Host for View<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, Fault> {
        self.bucket(&bucket)?.increment(&key, delta).await
    }
}

impl wasi::keyvalue::batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Fault> {
        let values = self.bucket(&bucket)?.get_many(&keys).await?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| value.map(|value| (key, value))).collect())
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Fault> {
        self.bucket(&bucket)?.set_many(pairs).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Fault> {
        self.bucket(&bucket)?.delete_many(keys).await
    }
}

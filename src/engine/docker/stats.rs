//! What containers use, and which processes they have, as the engine counts them.

use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::{StatsOptionsBuilder, TopOptions};
use futures_util::StreamExt;
use jiff::Timestamp;

use super::Docker;
use super::error::{failed, is_conflict, is_not_found, wrap};
use crate::engine::Result;
use crate::model::{InstanceName, Usage};
use crate::plan::observed::Existing;

/// The processes of a container, as `ps -ef` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processes {
    /// Headings.
    pub titles: Vec<String>,
    /// A row for each process.
    pub rows: Vec<Vec<String>>,
}

impl Docker {
    /// What a container uses now; nothing when it is gone.
    pub async fn usage(&self, existing: &Existing) -> Result<Option<Usage>> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut looks = std::pin::pin!(self.client.stats(&existing.id, Some(options)));
        match looks.next().await {
            Some(Ok(look)) => Ok(usage(existing, &look)),
            Some(Err(error)) if is_not_found(&error) || is_conflict(&error) => Ok(None),
            Some(Err(error)) => Err(wrap("read the figures of", &existing.name, error)),
            None => Ok(None),
        }
    }

    /// The processes of a running container.
    pub async fn processes(&self, container: &str) -> Result<Processes> {
        match self.client.top_processes(container, None::<TopOptions>).await {
            Ok(found) => {
                Ok(Processes { titles: found.titles.unwrap_or_default(), rows: found.processes.unwrap_or_default() })
            }
            // It ended meanwhile.
            Err(error) if is_not_found(&error) || ended(&error) => Ok(Processes::default()),
            Err(error) => Err(failed("list the processes of", container)(error)),
        }
    }
}

fn ended(error: &Error) -> bool {
    is_conflict(error)
        || matches!(error, Error::DockerResponseServerError { message, .. } if message.contains("is not running"))
}

fn usage(existing: &Existing, look: &ContainerStatsResponse) -> Option<Usage> {
    let service = existing.service.clone()?;
    let nanos = look.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage).unwrap_or(0);
    let networks = || look.networks.iter().flat_map(|networks| networks.values());
    let blocks = |operation: &str| -> u64 {
        let entries = look.blkio_stats.as_ref().and_then(|blocks| blocks.io_service_bytes_recursive.as_ref());
        let of = |op: &Option<String>| op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation));
        entries.into_iter().flatten().filter(|entry| of(&entry.op)).filter_map(|entry| entry.value).sum()
    };
    Some(Usage {
        instance: InstanceName::new(service, existing.number.unwrap_or(0)),
        container: existing.name.clone(),
        id: existing.id.clone(),
        at: Timestamp::now(),
        cpu: Duration::from_nanos(nanos),
        memory: look.memory_stats.as_ref().map_or(0, memory),
        memory_limit: look.memory_stats.as_ref().and_then(|memory| memory.limit),
        received: networks().filter_map(|network| network.rx_bytes).sum(),
        sent: networks().filter_map(|network| network.tx_bytes).sum(),
        read: blocks("read"),
        written: blocks("write"),
        tasks: look.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or(0),
        guest: None,
    })
}

/// Without the file cache that can be given back at once, as docker's command line counts: the key is the control group
/// version's.
fn memory(memory: &ContainerMemoryStats) -> u64 {
    let usage = memory.usage.unwrap_or(0);
    let stats = memory.stats.as_ref();
    let cache = ["total_inactive_file", "inactive_file"].iter().find_map(|key| stats?.get(*key).copied());
    match cache {
        Some(cache) if cache < usage => usage - cache,
        Some(_) | None => usage,
    }
}

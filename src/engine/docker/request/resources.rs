//! Processor, memory, devices and limits of a container.

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice,
};
use serde_json::Value;

use super::document::{Document, integer, scalar};
use crate::model::Service;

/// Sets everything compose files say about resources; `deploy.resources` stands behind the keys of the service itself.
pub(super) fn fill(body: &mut HostConfig, service: &Service) {
    let document = Document(&service.document);
    let reserved = document.child("deploy").child("resources").child("reservations");
    body.memory = service.memory.map(|memory| i64::try_from(memory.0).unwrap_or(i64::MAX));
    body.nano_cpus = service.cpus.map(|cpus| (cpus * 1e9).round() as i64);
    body.pids_limit = service.pids;
    body.memory_reservation = document.bytes("mem_reservation").or_else(|| reserved.bytes("memory"));
    body.memory_swap = document.bytes("memswap_limit");
    body.memory_swappiness = document.integer("mem_swappiness");
    body.oom_kill_disable = document.flag("oom_kill_disable");
    body.oom_score_adj = document.integer("oom_score_adj");
    body.cpu_shares = document.integer("cpu_shares");
    body.cpu_period = document.micros("cpu_period");
    body.cpu_quota = document.micros("cpu_quota");
    body.cpu_realtime_period = document.micros("cpu_rt_period");
    body.cpu_realtime_runtime = document.micros("cpu_rt_runtime");
    body.cpu_count = document.integer("cpu_count");
    body.cpu_percent = document.integer("cpu_percent");
    body.cpuset_cpus = document.text("cpuset");
    body.cgroup_parent = document.text("cgroup_parent");
    body.shm_size = document.bytes("shm_size");
    body.storage_opt = document.map("storage_opt");
    body.device_cgroup_rules = document.list("device_cgroup_rules");
    body.ulimits = ulimits(document);
    block_io(body, document.child("blkio_config"));
    devices(body, document, reserved);
}

fn ulimits(document: Document<'_>) -> Option<Vec<ResourcesUlimits>> {
    let entries = document.value("ulimits")?.as_object()?;
    let limits: Vec<ResourcesUlimits> = entries
        .iter()
        .map(|(name, value)| {
            let (soft, hard) = match value {
                Value::Object(_) => (Document(value).integer("soft"), Document(value).integer("hard")),
                single => (integer(single), integer(single)),
            };
            ResourcesUlimits { name: Some(name.clone()), soft, hard: hard.or(soft) }
        })
        .collect();
    (!limits.is_empty()).then_some(limits)
}

fn block_io(body: &mut HostConfig, document: Document<'_>) {
    let throttles = |key: &str| -> Option<Vec<ThrottleDevice>> {
        let list: Vec<ThrottleDevice> = document
            .entries(key)
            .map(|entry| ThrottleDevice { path: entry.text("path"), rate: entry.bytes("rate") })
            .collect();
        (!list.is_empty()).then_some(list)
    };
    body.blkio_weight = document.integer("weight").and_then(|weight| u16::try_from(weight).ok());
    body.blkio_device_read_bps = throttles("device_read_bps");
    body.blkio_device_write_bps = throttles("device_write_bps");
    body.blkio_device_read_iops = throttles("device_read_iops");
    body.blkio_device_write_iops = throttles("device_write_iops");
    let weights: Vec<ResourcesBlkioWeightDevice> = document
        .entries("weight_device")
        .map(|entry| ResourcesBlkioWeightDevice {
            path: entry.text("path"),
            weight: entry.integer("weight").and_then(|weight| usize::try_from(weight).ok()),
        })
        .collect();
    body.blkio_weight_device = (!weights.is_empty()).then_some(weights);
}

fn devices(body: &mut HostConfig, document: Document<'_>, reserved: Document<'_>) {
    let (mut mapped, mut requested) = (Vec::new(), Vec::new());
    for value in document.value("devices").and_then(Value::as_array).into_iter().flatten() {
        let device = mapping(value);
        match device.path_on_host.as_deref() {
            // A name of the Container Device Interface, `vendor.com/class=name`, is no path.
            Some(name) if !name.starts_with('/') && name.contains('=') => requested.push(DeviceRequest {
                driver: Some("cdi".into()),
                device_ids: Some(vec![name.to_owned()]),
                ..DeviceRequest::default()
            }),
            _ => mapped.push(device),
        }
    }
    requested.extend(reserved.entries("devices").map(|entry| request(entry, Vec::new())));
    requested.extend(document.entries("gpus").map(|entry| request(entry, vec!["gpu".into()])));
    body.devices = (!mapped.is_empty()).then_some(mapped);
    body.device_requests = (!requested.is_empty()).then_some(requested);
}

fn mapping(value: &Value) -> DeviceMapping {
    let (source, target, permissions) = match value {
        Value::Object(_) => {
            let entry = Document(value);
            (entry.text("source"), entry.text("target"), entry.text("permissions"))
        }
        short => {
            let text = scalar(short).unwrap_or_default();
            let mut parts = text.splitn(3, ':').map(str::to_owned);
            (parts.next(), parts.next(), parts.next())
        }
    };
    DeviceMapping {
        path_in_container: target.or_else(|| source.clone()),
        path_on_host: source,
        cgroup_permissions: Some(permissions.unwrap_or_else(|| "rwm".into())),
    }
}

fn request(entry: Document<'_>, implied: Vec<String>) -> DeviceRequest {
    let device_ids = entry.list("device_ids");
    let mut capabilities = entry.list("capabilities").unwrap_or_default();
    capabilities.extend(implied);
    let count = match entry.text("count").as_deref() {
        Some("all") => Some(-1),
        Some(number) => number.parse().ok(),
        // Without a count and without ids, all of them.
        None if device_ids.is_none() => Some(-1),
        None => None,
    };
    DeviceRequest {
        driver: entry.text("driver"),
        count,
        device_ids,
        capabilities: (!capabilities.is_empty()).then(|| vec![capabilities]),
        options: entry.map("options"),
    }
}

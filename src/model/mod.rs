//! The typed project: the words every layer below speaks. No I/O, no YAML, no Docker types.

pub mod application;
pub mod graph;
pub mod health;
pub mod image;
mod keyvalue;
pub mod mount;
pub mod name;
pub mod port;
pub mod project;
pub mod quantity;
pub mod restart;
pub mod service;
pub mod usage;

pub use health::{HealthTest, Healthcheck};
pub use image::{ImageConfig, Module, ModuleKind, Resolved};
pub use keyvalue::{BadRedisAddress, RedisAddress};
pub use mount::{FileContent, FileGrant, Mount, MountSource};
pub use name::{InstanceName, NetworkKey, ProjectName, ServiceName, VolumeKey};
pub use port::{ExposedPort, HostPort, Port, Protocol};
pub use project::{Ipam, IpamPool, Network, Project, Volume};
pub use quantity::Bytes;
pub use restart::Restart;
pub use service::{
    Attachment, Build, Condition, Dependency, HostBuild, Logging, NetworkMode, PullPolicy, Service, WasmOptions,
};
pub use usage::{GuestUsage, Histogram, Usage};

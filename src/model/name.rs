//! The names and ids everything else refers to, as types that cannot be mixed up.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// Wraps a name that was checked where it was read.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

name! {
    /// A project's name, normalised as compose does: `[a-z0-9][a-z0-9_-]*`.
    ProjectName
}
name! {
    /// A key of `services`.
    ServiceName
}
name! {
    /// A key of `networks` (not the name the engine knows it by).
    NetworkKey
}
name! {
    /// A key of `volumes` (not the name the engine knows it by).
    VolumeKey
}

/// One replica of a service; numbers start at 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceName {
    /// The service it is a replica of.
    pub service: ServiceName,
    /// `com.docker.compose.container-number`.
    pub number: u32,
}

impl InstanceName {
    /// The replica `number` of `service`.
    pub fn new(service: ServiceName, number: u32) -> Self {
        Self { service, number }
    }
}

/// `web-1`, as in log prefixes.
impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{}", self.service, self.number))
    }
}

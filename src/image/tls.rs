//! TLS for whatever talks to registries and repositories: one provider for the process, the system's certificates.

/// Chooses the provider, before the first connection. Where one was chosen already, that one stays.
pub fn prepare() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

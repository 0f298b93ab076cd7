//! Applications: several components behind the ports of one service. Each request goes to the component of its route, with
//! what Spin tells components of it in headers (<https://spinframework.dev/http-trigger#request-headers>).
//!
//! A component has the service's limits, output and mounts, and of its own its environment, files, variables, stores and the
//! bounds of what it reaches.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue, Request};
use tokio_util::sync::CancellationToken;

use super::answer::{Component, Generation};
use super::extras::Extras;
use super::host::Grants;
use super::serve::Site;
use crate::image::spin::VARIABLE;
use crate::model::Module;
use crate::model::application::{AppComponent, Application, Routed};
use crate::net::stack::Bounds;

/// A path that answers while the application does, as in Spin.
const HEALTH: &str = "/.well-known/spin/health";

/// An application whose components are linked.
#[derive(Clone)]
pub struct Linked {
    /// What it is.
    pub application: Arc<Application>,
    /// Its components, in its order.
    pub components: Vec<Component>,
    /// Instances are kept between requests.
    pub reuse: bool,
}

/// What becomes of a request.
pub enum Direction {
    /// The component at this place answers it.
    To(usize),
    /// Nothing is there.
    Nowhere,
    /// The host answers that all is well.
    Health,
}

impl Linked {
    /// What answers requests; folders are opened now.
    pub fn site(self, grants: &Grants) -> wasmtime::Result<Site> {
        let Self { application, components, reuse } = self;
        let killed = CancellationToken::new();
        let generations = application.components.iter().zip(components).map(|(part, component)| {
            let grants = Arc::new(granted(grants, part)?);
            let files = grants.files()?;
            Ok(Arc::new(Generation::over(component, grants, reuse, files, killed.clone())))
        });
        Ok(Site { generations: generations.collect::<wasmtime::Result<_>>()?, application: Some(application) })
    }
}

/// The components of a module whose files lie apart.
pub fn rooms(module: &Module) -> Vec<String> {
    let components = module.application().map(|application| application.components.as_slice()).unwrap_or_default();
    let names = components.iter().map(|part| part.name.clone());
    if components.len() > 1 { names.collect() } else { Vec::new() }
}

/// What the guests of a component are given, of what those of the service are.
fn granted(grants: &Grants, part: &AppComponent) -> wasmtime::Result<Grants> {
    let bounds = Bounds::new(&part.name, &part.settings.hosts);
    let bounds = bounds.map_err(|error| wasmtime::format_err!("`{}` of the Spin application: {error}", part.name))?;
    let mut environment: Vec<(String, String)> = part.module.config.environment.clone().into_iter().collect();
    for (name, value) in grants.environment.iter().filter(|(name, _)| !name.starts_with(VARIABLE)) {
        environment.retain(|(known, _)| known != name);
        environment.push((name.clone(), value.clone()));
    }
    let mut variables = part.settings.variables.clone();
    variables.extend(grants.extras.config.iter().map(|(name, value)| (name.clone(), value.clone())));
    let preopens = grants.rooms.get(&part.name).unwrap_or(&grants.preopens).clone();
    Ok(Grants {
        environment,
        preopens,
        stack: grants.stack.bounded(bounds),
        extras: Extras {
            config: Arc::new(variables),
            stores: Some(part.settings.stores.clone().into()),
            ..grants.extras.clone()
        },
        ..grants.clone()
    })
}

/// Finds the component that answers a request from an address, and tells it in headers how it was found.
pub fn direct<B>(application: &Application, request: &mut Request<B>, from: SocketAddr) -> Direction {
    let path = request.uri().path().to_owned();
    if path == HEALTH {
        return Direction::Health;
    }
    let Some(routed) = application.route(&path) else { return Direction::Nowhere };
    let component = routed.route.component;
    for (name, value) in headers(application, &routed, request, from) {
        // What cannot stand in a header is not told.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            request.headers_mut().insert(name, value);
        }
    }
    Direction::To(component)
}

fn headers<B>(
    application: &Application,
    routed: &Routed<'_>,
    request: &Request<B>,
    from: SocketAddr,
) -> Vec<(String, String)> {
    let uri = request.uri();
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost");
    let scheme = uri.scheme_str().unwrap_or("http");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = vec![
        ("spin-path-info".to_owned(), routed.rest.clone()),
        ("spin-full-url".to_owned(), format!("{scheme}://{host}{path}")),
        ("spin-matched-route".to_owned(), application.based(routed.route)),
        ("spin-base-path".to_owned(), application.base.clone()),
        ("spin-raw-component-route".to_owned(), routed.route.pattern.clone()),
        ("spin-component-route".to_owned(), routed.route.prefix().to_owned()),
        ("spin-client-addr".to_owned(), from.to_string()),
    ];
    let named = routed.named.iter();
    headers
        .extend(named.map(|(name, value)| (format!("spin-path-match-{}", name.to_ascii_lowercase()), value.clone())));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::application::Route;

    #[test]
    fn a_request_is_told_how_it_was_found() {
        let route = Route { pattern: "/users/:Id/...".into(), component: 3 };
        let application = Application { base: "/shop".into(), routes: vec![route], ..Application::default() };
        let mut request = Request::get("/shop/users/7/edit/now?a=b").header("host", "example.com:81").body(()).unwrap();
        request.headers_mut().insert("spin-client-addr", HeaderValue::from_static("forged"));
        let direction = direct(&application, &mut request, "10.0.0.1:1234".parse().unwrap());
        assert!(matches!(direction, Direction::To(3)));
        let told = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
        for (name, value) in [
            ("spin-path-info", "/edit/now"),
            ("spin-full-url", "http://example.com:81/shop/users/7/edit/now?a=b"),
            ("spin-matched-route", "/shop/users/:Id/..."),
            ("spin-base-path", "/shop"),
            ("spin-raw-component-route", "/users/:Id/..."),
            ("spin-component-route", "/users/:Id"),
            ("spin-client-addr", "10.0.0.1:1234"),
            ("spin-path-match-id", "7"),
        ] {
            assert_eq!(told(name), value, "{name}");
        }
        let mut request = Request::get("/other").body(()).unwrap();
        assert!(matches!(direct(&application, &mut request, "10.0.0.1:1".parse().unwrap()), Direction::Nowhere));
        let mut request = Request::get(HEALTH).body(()).unwrap();
        assert!(matches!(direct(&application, &mut request, "10.0.0.1:1".parse().unwrap()), Direction::Health));
    }
}

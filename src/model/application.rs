//! Several components that are one service, each behind its routes: what a Spin application is here.
//!
//! Routes are Spin's (<https://spinframework.dev/http-trigger>): `/cart` is that path alone, `/cart/...` and all below it, and
//! `:name` stands for one segment. Of several that fit, segment for segment from the left, one that is written out goes
//! before `:name`, and that before `...`. A slash at the end of a path makes no difference.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use super::Module;

/// An application: components and the routes to them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Application {
    /// Each has a name of its own, fit for a folder.
    pub components: Vec<AppComponent>,
    /// Before each route: `/`, or a path without a slash at its end.
    pub base: String,
    /// Where requests go.
    pub routes: Vec<Route>,
    /// SHA-256 of all that it is made of, 64 hex digits.
    pub digest: String,
}

/// A component of an application.
#[derive(Debug, Clone, PartialEq)]
pub struct AppComponent {
    /// Its name.
    pub name: String,
    /// What it runs; the environment is in its configuration.
    pub module: Module,
    /// Its part of the application's manifest.
    pub settings: AppSettings,
}

/// What the manifest says of a component, beside what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AppSettings {
    /// Its variables, for `wasi:config`.
    pub variables: BTreeMap<String, String>,
    /// What it says it reaches, in the form of `x-wasm.egress`: a bound on what the file allows, never more than that.
    pub hosts: Vec<String>,
    /// The stores of `wasi:keyvalue` it may open.
    pub stores: Vec<String>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// As written, with a slash at its beginning.
    pub pattern: String,
    /// The place of its component among the application's.
    pub component: usize,
}

/// A request's path and the route that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<'r> {
    /// The route.
    pub route: &'r Route,
    /// What stands for `...`, with a slash before it; empty where nothing does.
    pub rest: String,
    /// What stands for each `:name`.
    pub named: Vec<(&'r str, String)>,
}

/// A part of a route between slashes. The order is the one they are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment<'r> {
    Exact(&'r str),
    Named(&'r str),
    Rest,
}

impl Segment<'_> {
    fn rank(self) -> u8 {
        match self {
            Self::Exact(_) => 0,
            Self::Named(_) => 1,
            Self::Rest => 2,
        }
    }
}

impl Application {
    /// The way of a request; of two routes that are equal the later one.
    pub fn route(&self, path: &str) -> Option<Routed<'_>> {
        let below = match self.base.as_str() {
            "/" => path,
            base => path.strip_prefix(base).filter(|below| below.is_empty() || below.starts_with('/'))?,
        };
        let fitting = self.routes.iter().filter_map(|route| Some((segments(&route.pattern), route.fit(below)?)));
        fitting.min_by(|a, b| precedence(&a.0, &b.0).then(Ordering::Greater)).map(|(_, routed)| routed)
    }

    /// A route below the base.
    pub fn based(&self, route: &Route) -> String {
        if self.base == "/" { route.pattern.clone() } else { format!("{}{}", self.base, route.pattern) }
    }
}

impl Route {
    /// The pattern without `/...` at its end.
    pub fn prefix(&self) -> &str {
        self.pattern.strip_suffix("/...").or_else(|| self.pattern.strip_suffix("/*")).unwrap_or(&self.pattern)
    }

    fn fit(&self, path: &str) -> Option<Routed<'_>> {
        let mut given = parts(path);
        let mut named = Vec::new();
        for segment in segments(&self.pattern) {
            match segment {
                Segment::Rest => {
                    let rest: String = given.map(|part| format!("/{part}")).collect();
                    let slash = if path.ends_with('/') && !rest.ends_with('/') { "/" } else { "" };
                    return Some(Routed { route: self, rest: rest + slash, named });
                }
                Segment::Exact(text) => given.next().filter(|part| *part == text).map(drop)?,
                Segment::Named(name) => named.push((name, given.next()?.to_owned())),
            }
        }
        given.next().is_none().then(|| Routed { route: self, rest: String::new(), named })
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_matches('/');
    path.split('/').filter(move |_| !path.is_empty())
}

fn segments(pattern: &str) -> Vec<Segment<'_>> {
    let segment = |part| match part {
        "..." | "*" => Segment::Rest,
        part => part.strip_prefix(':').map_or(Segment::Exact(part), Segment::Named),
    };
    parts(pattern).map(segment).collect()
}

fn precedence(a: &[Segment<'_>], b: &[Segment<'_>]) -> Ordering {
    let first = a.iter().zip(b).map(|(a, b)| a.rank().cmp(&b.rank())).find(|order| order.is_ne());
    first.unwrap_or_else(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(base: &str, patterns: &[&str]) -> Application {
        let route = |pattern: &&str| Route { pattern: (*pattern).to_owned(), component: 0 };
        Application { base: base.to_owned(), routes: patterns.iter().map(route).collect(), ..Application::default() }
    }

    /// The route that is taken, and what its wildcards stand for.
    fn taken(application: &Application, path: &str) -> Option<String> {
        let routed = application.route(path)?;
        let named = routed.named.iter().map(|(name, value)| format!(" {name}={value}"));
        Some(format!("{} {}{}", routed.route.pattern, routed.rest, named.collect::<String>()))
    }

    #[test]
    fn the_most_specific_route_is_taken_whatever_their_order() {
        let patterns = ["/", "/...", "/cart", "/cart/...", "/users/:id", "/users/:id/edit", "/users/me", "/:any/edit"];
        let reversed: Vec<&str> = patterns.iter().rev().copied().collect();
        for application in [application("/", &patterns), application("/", &reversed)] {
            for (path, expected) in [
                ("/", "/ "),
                ("/cart", "/cart "),
                ("/cart/", "/cart "),
                ("/cart/a/b", "/cart/... /a/b"),
                ("/cart/a/", "/cart/... /a/"),
                ("/carts", "/... /carts"),
                ("/users", "/... /users"),
                ("/users/7", "/users/:id  id=7"),
                ("/users/me", "/users/me "),
                ("/users/7/edit", "/users/:id/edit  id=7"),
                ("/users/7/edit/x", "/... /users/7/edit/x"),
                ("/x/edit", "/:any/edit  any=x"),
            ] {
                assert_eq!(taken(&application, path).as_deref(), Some(expected), "{path}");
            }
        }
    }

    #[test]
    fn without_a_wildcard_other_paths_have_no_route() {
        let application = application("/", &["/cart", "/users/:id"]);
        for path in ["/", "/cart/a", "/users", "/users/1/2", "/Cart"] {
            assert_eq!(taken(&application, path), None, "{path}");
        }
    }

    #[test]
    fn of_equal_routes_the_later_counts() {
        let mut application = application("/", &["/a", "/a"]);
        application.routes[1].component = 1;
        assert_eq!(application.route("/a").map(|routed| routed.route.component), Some(1));
    }

    #[test]
    fn a_base_stands_before_each_route() {
        let application = application("/shop", &["/cart", "/..."]);
        assert_eq!(taken(&application, "/shop/cart").as_deref(), Some("/cart "));
        assert_eq!(taken(&application, "/shop").as_deref(), Some("/... "));
        assert_eq!(taken(&application, "/shopping"), None);
        assert_eq!(application.based(&application.routes[0]), "/shop/cart");
    }
}

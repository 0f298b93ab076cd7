//! Rules by place: a table of patterns such as `services.*.build.args`, compiled so that a walk through a document
//! carries its place along and leaves alone what no rule is about.

use super::node::ELEMENT;

/// What is to be done where.
#[derive(Debug)]
pub struct Rules<R> {
    places: Vec<Branch<R>>,
}

#[derive(Debug)]
struct Branch<R> {
    rule: Option<R>,
    /// Keys that rules name, and the one for all others (`*`).
    named: Vec<(&'static str, usize)>,
    any: Option<usize>,
}

impl<R: Copy> Rules<R> {
    /// Compiles a table. `*` stands for any key, `[]` for the elements of a list.
    pub fn new(table: &[(&'static str, R)]) -> Self {
        let mut rules = Self { places: vec![Branch { rule: None, named: Vec::new(), any: None }] };
        for (pattern, rule) in table {
            let place = pattern.split('.').fold(0, |place, part| rules.branch(place, part));
            rules.places[place].rule = Some(*rule);
        }
        rules
    }

    fn branch(&mut self, place: usize, part: &'static str) -> usize {
        let branch = &self.places[place];
        let known = if part == "*" {
            branch.any
        } else {
            branch.named.iter().find(|(name, _)| *name == part).map(|(_, next)| *next)
        };
        if let Some(next) = known {
            return next;
        }
        let next = self.places.len();
        self.places.push(Branch { rule: None, named: Vec::new(), any: None });
        match part {
            "*" => self.places[place].any = Some(next),
            name => self.places[place].named.push((name, next)),
        }
        next
    }

    /// The place a walk begins at.
    pub fn root(&self) -> Place<'_, R> {
        Place { rules: self, at: 0 }
    }
}

/// Where a walk is, in the eyes of the rules.
#[derive(Debug)]
pub struct Place<'r, R> {
    rules: &'r Rules<R>,
    at: usize,
}

impl<R> Clone for Place<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Place<'_, R> {}

impl<R: Copy> Place<'_, R> {
    /// The rule of this very place.
    pub fn rule(self) -> Option<R> {
        self.rules.places[self.at].rule
    }

    /// The place under a key; nothing when no rule is about it or what is below it.
    pub fn key(self, key: &str) -> Option<Self> {
        let branch = &self.rules.places[self.at];
        let next = branch.named.iter().find(|(name, _)| *name == key).map(|(_, next)| *next).or(branch.any)?;
        Some(Self { at: next, ..self })
    }

    /// The place of a list's elements.
    pub fn element(self) -> Option<Self> {
        self.key(ELEMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_key() {
        let rules = Rules::new(&[("services.*.ports.[]", 1), ("services.*", 2), ("networks.*.labels", 3)]);
        let at = |path: &[&str]| path.iter().try_fold(rules.root(), |place, key| place.key(key)).map(Place::rule);
        assert_eq!(at(&["services", "a.b", "ports", "[]"]), Some(Some(1)));
        assert_eq!(at(&["services", "a.b"]), Some(Some(2)));
        assert_eq!(at(&["services", "a.b", "ports"]), Some(None));
        assert_eq!(at(&["services", "a.b", "image"]), None);
        assert_eq!(at(&["networks", "labels", "labels"]), Some(Some(3)));
    }
}

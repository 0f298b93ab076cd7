//! `.dockerignore`: which paths of a folder are left out, of a build context and of what is watched.
//!
//! The rules are the engine's own (its pattern matcher): patterns are anchored at the context's root, `*` and `?` stop at `/`, `**`
//! does not, `[…]` is a class, `\` takes away a character's meaning, `!` brings back, the last pattern that matches decides, and
//! what matches a folder matches everything below it.

/// The rules of one context.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    whole: Glob,
    /// The same by path component, for telling whether it can match below a folder.
    components: Vec<Component>,
}

#[derive(Debug, Clone)]
enum Component {
    Folders,
    One(Glob),
}

/// What `*` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Star {
    /// Anything but a slash.
    StopsAtSlash,
    /// Anything.
    Crosses,
}

/// Whether one pattern fits a path (relative, `/`-separated), and not only a folder above it.
pub fn fits(pattern: &str, path: &str, star: Star) -> bool {
    Glob::parse(&clean(pattern), star).matches(path)
}

impl Rules {
    /// Reads the text of an ignore file.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
        let patterns = lines
            .filter_map(|line| {
                let (negated, pattern) = match line.strip_prefix('!') {
                    Some(rest) => (true, rest.trim()),
                    None => (false, line),
                };
                let cleaned = clean(pattern);
                (!cleaned.is_empty()).then(|| Pattern {
                    negated,
                    whole: Glob::parse(&cleaned, Star::StopsAtSlash),
                    components: cleaned.split('/').map(component).collect(),
                })
            })
            .collect();
        Self { patterns }
    }

    /// Whether a path (relative, `/`-separated) is left out.
    pub fn leave_out(&self, path: &str) -> bool {
        let mut out = false;
        for pattern in &self.patterns {
            if pattern.negated == out && pattern.matches(path) {
                out = !pattern.negated;
            }
        }
        out
    }

    /// Whether anything below a folder that is left out may be brought back.
    pub fn may_bring_back_below(&self, folder: &str) -> bool {
        let folders: Vec<&str> = folder.split('/').collect();
        self.patterns.iter().any(|pattern| {
            pattern.negated
                && pattern
                    .components
                    .iter()
                    .zip(&folders)
                    .take_while(|(component, _)| matches!(component, Component::One(_)))
                    .all(|(component, name)| match component {
                        Component::Folders => true,
                        Component::One(glob) => glob.matches(name),
                    })
        })
    }
}

impl Pattern {
    /// Whether it matches the path or a folder above it.
    fn matches(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.whole.matches(&path[..end]))
    }
}

/// As a file system would: no empty or `.` components, `..` taken back as far as possible, no slash at either end.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

fn component(text: &str) -> Component {
    if text.contains("**") { Component::Folders } else { Component::One(Glob::parse(text, Star::StopsAtSlash)) }
}

/// A pattern as a small automaton: its time is bounded by pattern times path, whatever the pattern.
#[derive(Debug, Clone)]
struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Some,
    /// `**` at the end, and `*` where it crosses slashes.
    Everything,
    /// `**/`: nothing, or [`Token::Below`].
    Entry,
    /// Folders, each with its slash.
    Below,
    /// `[a-z]`, `[^a-z]`
    Class {
        inverted: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    fn parse(pattern: &str, star: Star) -> Self {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '*' if rest.peek() == Some(&'*') => {
                    while rest.next_if_eq(&'*').is_some() {}
                    rest.next_if_eq(&'/');
                    if rest.peek().is_none() {
                        tokens.push(Token::Everything);
                    } else {
                        tokens.extend([Token::Entry, Token::Below]);
                    }
                }
                '*' if star == Star::Crosses => tokens.push(Token::Everything),
                '*' => tokens.push(Token::Some),
                '?' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Char(rest.next().unwrap_or('\\'))),
                '[' => {
                    let inverted = rest.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while let Some(first) = rest.next() {
                        if first == ']' && !ranges.is_empty() {
                            break;
                        }
                        let first = if first == '\\' { rest.next().unwrap_or('\\') } else { first };
                        let mut ahead = rest.clone();
                        if ahead.next() == Some('-')
                            && let Some(last) = ahead.next().filter(|last| *last != ']')
                        {
                            rest = ahead;
                            ranges.push((first, last));
                        } else {
                            ranges.push((first, first));
                        }
                    }
                    tokens.push(Token::Class { inverted, ranges });
                }
                other => tokens.push(Token::Char(other)),
            }
        }
        Self { tokens }
    }

    fn matches(&self, text: &str) -> bool {
        let mut states = vec![false; self.tokens.len() + 1];
        self.enter(&mut states, 0);
        for c in text.chars() {
            let mut next = vec![false; states.len()];
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| states[*at]) {
                match token {
                    Token::Char(wanted) if *wanted == c => self.enter(&mut next, at + 1),
                    Token::One if c != '/' => self.enter(&mut next, at + 1),
                    Token::Some if c != '/' => self.enter(&mut next, at),
                    Token::Everything => self.enter(&mut next, at),
                    Token::Below => {
                        next[at] = true;
                        if c == '/' {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    Token::Class { inverted, ranges } => {
                        let within = ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                        if c != '/' && within != *inverted {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    Token::Char(_) | Token::One | Token::Some | Token::Entry => {}
                }
            }
            states = next;
        }
        states[self.tokens.len()]
    }

    /// Marks a state and those reached from it without a character.
    fn enter(&self, states: &mut [bool], at: usize) {
        if std::mem::replace(&mut states[at], true) {
            return;
        }
        match self.tokens.get(at) {
            Some(Token::Some | Token::Everything) => self.enter(states, at + 1),
            Some(Token::Entry) => {
                self.enter(states, at + 1);
                self.enter(states, at + 2);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_pattern_fits_whole_paths() {
        for (pattern, path, stops, crosses) in [
            ("*.txt", "a.txt", true, true),
            ("*.txt", "x/a.txt", false, true),
            ("assets/*.txt", "assets/x/a.txt", false, true),
            ("assets/**/*.txt", "assets/a.txt", true, true),
            ("./assets/*", "assets/a", true, true),
            ("assets", "assets/a", false, false),
        ] {
            assert_eq!(fits(pattern, path, Star::StopsAtSlash), stops, "{pattern} {path}");
            assert_eq!(fits(pattern, path, Star::Crosses), crosses, "{pattern} {path}");
        }
    }

    fn left_out(rules: &str, path: &str) -> bool {
        Rules::parse(rules).leave_out(path)
    }

    #[test]
    fn patterns_match_as_the_engine_does() {
        let cases = [
            ("*.log", "a.log", true),
            ("*.log", "dir/a.log", false),
            ("**/*.log", "a.log", true),
            ("**/*.log", "x/y/a.log", true),
            ("**/*.log", "x/a.logs", false),
            ("*/temp*", "x/temporary/file", true),
            ("*/*/temp*", "x/temp", false),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("temp?", "temp/", false),
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "x/node_modules", false),
            ("**/node_modules", "x/node_modules/y", true),
            ("**/node_modules", "node_modules", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("/abs", "abs", true),
            ("./dot/", "dot", true),
            ("a/../b", "b", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("a.c", "abc", false),
            ("**", "anything/at/all", true),
            ("#comment", "#comment", false),
            ("  spaced  ", "spaced", true),
        ];
        for (rules, path, expected) in cases {
            assert_eq!(left_out(rules, path), expected, "`{rules}` on `{path}`");
        }
    }

    #[test]
    fn the_last_matching_pattern_decides() {
        assert!(!left_out("*.md\n!README.md", "README.md"));
        assert!(left_out("*.md\n!README*.md\nREADME-secret.md", "README-secret.md"));
        assert!(!left_out("*.md\nREADME-secret.md\n!README*.md", "README-secret.md"));
        assert!(!left_out("*\n!src", "src/main.rs"));
        assert!(left_out("*\n!src", "target/x"));
        assert!(left_out("*\n!src\nsrc/gen", "src/gen/a"));
    }

    #[test]
    fn folders_are_entered_only_when_something_below_may_come_back() {
        let rules = Rules::parse("*\n!src/*.rs\n!docs/**/keep");
        assert!(rules.may_bring_back_below("src"));
        assert!(rules.may_bring_back_below("docs/a/b"));
        assert!(!rules.may_bring_back_below("target"));
        assert!(!Rules::parse("target").may_bring_back_below("target"));
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let rules = Rules::parse(&"**/*".repeat(40));
        assert!(rules.leave_out(&"a/".repeat(200)) || !rules.leave_out(&"a/".repeat(200)));
    }
}

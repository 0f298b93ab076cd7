//! What loading may cost. Each number is far above what people write, and small enough for any machine: a file made to
//! eat memory or time ends with an error that names the limit.

use super::node::{Data, Node};

/// Bytes of one file.
pub const FILE_BYTES: usize = 16 << 20;
/// Levels of nested lists and mappings.
pub const DEPTH: usize = 128;
/// Cost of the values of one file, aliases expanded.
pub const FILE_VALUES: usize = 2_000_000;
/// Cost of the values of all files, each counted as often as it is included or extended.
pub const PROJECT_VALUES: usize = 2_500_000;
/// What an include costs besides its values.
pub const INCLUDE: usize = 1_000;
/// Services that extend one another in a row.
pub const EXTENDS: usize = 100;
/// Variables within the words of variables.
pub const NESTED_VARIABLES: usize = 64;
/// Bytes one text may become by its variables.
pub const TEXT_BYTES: usize = 1 << 20;
/// Bytes all texts of a file may become by their variables.
pub const EXPANDED_BYTES: usize = 64 << 20;
/// Ports the short forms of a file stand for.
pub const PORTS: usize = 200_000;
/// Pairs of address pools that two files may have for one network.
pub const POOL_PAIRS: usize = 100_000;

/// What a value costs: one, and more where it is long.
pub fn cost(node: &Node) -> usize {
    match &node.data {
        Data::Text(text) => of_text(text),
        Data::List(list) => 1 + list.iter().map(cost).sum::<usize>(),
        Data::Map(map) => 1 + map.iter().map(|(key, node)| of_text(&key.text) + cost(node)).sum::<usize>(),
        Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Date(_) => 1,
    }
}

/// What a text costs.
pub fn of_text(text: &str) -> usize {
    1 + text.len() / 64
}

/// A number of bytes in words.
pub fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes >> 20)
}

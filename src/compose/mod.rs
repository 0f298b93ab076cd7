//! stub
#![allow(missing_docs)]
use std::collections::BTreeMap;
use std::path::PathBuf;
use crate::diag::{Diagnostic, Sources};
use crate::model::Project;
pub struct Disk;
pub struct Options { pub directory: PathBuf, pub files: Vec<String>, pub stdin: Option<String>, pub project_directory: Option<PathBuf>, pub project_name: Option<String>, pub profiles: Vec<String>, pub env_files: Vec<String>, pub environment: BTreeMap<String, String> }
#[derive(Debug)]
pub struct Loaded { pub project: Project, pub sources: Sources, pub warnings: Vec<Diagnostic> }
#[derive(Debug)]
pub struct LoadError { pub diagnostics: Vec<Diagnostic>, pub sources: Sources, pub directory: PathBuf }
impl LoadError { pub fn is_no_file(&self) -> bool { false } }
pub fn load(_: &Options, _: &Disk) -> Result<Loaded, LoadError> { todo!() }

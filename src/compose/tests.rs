//! Cases through the whole loader: files in memory → document or messages.

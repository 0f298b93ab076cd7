//! See STYLE, layout.

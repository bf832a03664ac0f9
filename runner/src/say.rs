//! `eprint!` and `eprintln!` as this crate uses them: where stderr cannot be written to (a full disk
//! behind it), nothing is said, and the work goes on. Those of `std` panic.

macro_rules! eprint {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}

macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

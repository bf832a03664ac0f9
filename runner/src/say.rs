//! What is printed, as this crate does it; the macros of `std` panic where a stream cannot be written.
//!
//! On stderr nothing is said then (a full disk behind it), and the work goes on. On stdout a reader
//! that has seen enough, as `head`, is no failure; data that did not arrive is one, at once.

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

macro_rules! print {
    ($($text:tt)*) => { $crate::say::out(format_args!($($text)*)) };
}

macro_rules! println {
    () => { $crate::say::out(format_args!("\n")) };
    ($($text:tt)*) => { $crate::say::out(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes to stdout. Ends the process where that fails, but for a reader that is gone.
pub fn out(text: std::fmt::Arguments<'_>) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to stdout: {error}");
            std::process::exit(crate::exit::code::INTERNAL.into());
        }
        _ => {}
    }
}

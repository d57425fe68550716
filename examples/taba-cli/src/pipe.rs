//! The reader of standard output: `taba watch idle | head -1` ends when it has gone, and not at the next change.

/// From now on the process ends well when nobody reads its output any more.
#[cfg(unix)]
pub(crate) fn end_with_its_reader() {
    use rustix::event::{PollFd, PollFlags, poll};

    let watch = || {
        // Nothing is asked for: errors and the end of the reader are told all the same. What has no reader that could go,
        // a file or a terminal, is waited for without end.
        let mut out = [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut out, None) {}
        if out[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            std::process::exit(0);
        }
    };
    // Without the thread it ends at the next change, as any writer to a pipe does.
    let _ = std::thread::Builder::new().name("taba-pipe".to_owned()).spawn(watch);
}

/// Elsewhere it ends at the next change, as any writer to a pipe does.
#[cfg(not(unix))]
pub(crate) fn end_with_its_reader() {}

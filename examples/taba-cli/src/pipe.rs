//! Detects a closed standard output: `taba watch idle | head -1` ends at once, not at the next change.

/// From then on the process ends successfully when the reader of its output is gone.
#[cfg(unix)]
pub(crate) fn end_with_its_reader() {
    use rustix::event::{PollFd, PollFlags, poll};

    let watch = || {
        // Without requested events, errors and hang-ups are reported all the same. For a file or a terminal this
        // waits forever.
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

//! The live view: what a run does, on a terminal that can be drawn on. A thread of its own draws it and reads the keys, since a
//! terminal may take its time; the run only sets what is shown.
//!
//! It is drawn a few times a second, and only if something has changed. The terminal is restored when the view is dropped, and
//! before the message of a panic in any thread.

mod draw;
mod model;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, Once};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use rustix::process::{Signal, getpid, kill_process};

pub(crate) use self::model::{Model, RunStage};

/// The least time between two pictures.
const PICTURE_EVERY: Duration = Duration::from_millis(250);

/// A terminal that takes longer than this to take a picture is not waited for at the end.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// What the run and the view share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Set by the run several times a second, read once per picture.
    model: Mutex<Model>,
    is_changed: AtomicBool,
    is_closed: AtomicBool,
}

/// Whether the terminal is ours. Held while a picture is drawn, so that nothing is drawn over a restored terminal.
static IS_OPEN: Mutex<bool> = Mutex::new(false);

/// Panics restore the terminal from the first view on.
static HOOK: Once = Once::new();

/// The view, until dropped.
#[derive(Debug)]
pub(crate) struct LiveView {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    /// Sets what is shown.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Model)) {
        change(&mut self.model.lock());
        // Relaxed: a picture that misses it is followed by another one.
        self.is_changed.store(true, Ordering::Relaxed);
    }
}

impl LiveView {
    /// Takes the terminal and begins to draw.
    ///
    /// # Errors
    /// The terminal's own; it is as it was then.
    pub(crate) fn open(model: Model) -> io::Result<Self> {
        let mut open = IS_OPEN.lock();
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        *open = true;
        drop(open);
        HOOK.call_once(restore_at_panic);
        let shared = Arc::new(Shared {
            model: Mutex::new(model),
            is_changed: AtomicBool::new(true),
            is_closed: AtomicBool::new(false),
        });
        let shown = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("live-view".to_owned()).spawn(move || show(terminal, &shown));
        let thread = thread.inspect_err(|_| restore()).map(Some)?;
        Ok(Self { shared, thread })
    }

    /// Where the run sets what is shown.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Restores the terminal; gives the lines that were printed meanwhile.
    pub(crate) fn close(mut self) -> Vec<String> {
        self.end();
        self.shared.model.lock().take_lines()
    }

    #[expect(clippy::disallowed_methods, reason = "the end of a run: nothing else is waiting")]
    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.is_closed.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + CLOSES_WITHIN;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
        restore();
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        self.end();
    }
}

/// Draws until the view is closed, or the terminal is gone.
fn show(mut terminal: DefaultTerminal, shared: &Shared) {
    let mut drawn: Option<Instant> = None;
    while !shared.is_closed.load(Ordering::Relaxed) {
        let is_due = drawn.is_none_or(|at| at.elapsed() >= PICTURE_EVERY);
        if is_due && shared.is_changed.swap(false, Ordering::Relaxed) {
            if picture(&mut terminal, shared).is_err() {
                return;
            }
            drawn = Some(Instant::now());
        }
        match event::poll(PICTURE_EVERY / 5).and_then(|is_there| is_there.then(event::read).transpose()) {
            Ok(None) => {}
            Ok(Some(Event::Key(key))) if ends(&key) => {
                // As a signal does: a second one ends the waiting.
                let _ = kill_process(getpid(), Signal::INT);
            }
            Ok(Some(Event::Resize(..))) => {
                drawn = None;
                shared.is_changed.store(true, Ordering::Relaxed);
            }
            Ok(Some(_)) => {}
            // A terminal that was closed: SIGHUP ends the run.
            Err(_) => return,
        }
    }
}

fn picture(terminal: &mut DefaultTerminal, shared: &Shared) -> io::Result<()> {
    let open = IS_OPEN.lock();
    if !*open {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let model = shared.model.lock();
    terminal.draw(|frame| draw::draw(frame, &model)).map(drop)
}

/// `q`, and what a terminal makes a signal of otherwise.
fn ends(key: &KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let is_asked = matches!(key.code, KeyCode::Char('q' | 'Q')) || key.code == KeyCode::Char('c') && is_control;
    is_asked && key.kind == KeyEventKind::Press
}

fn restore() {
    // A terminal that hangs is restored without waiting for the picture.
    let open = IS_OPEN.try_lock_for(CLOSES_WITHIN);
    if open.as_deref() == Some(&false) {
        return;
    }
    ratatui::restore();
    if let Some(mut open) = open {
        *open = false;
    }
}

fn restore_at_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        before(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_control_c_end_a_run() {
        let key = |code, modifiers| ends(&KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE) && !key(KeyCode::Enter, KeyModifiers::NONE));
    }
}

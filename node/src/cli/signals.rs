//! SIGINT and SIGTERM: the first asks for a graceful end, the second takes none for an answer.

/// Runs `graceful` at the first SIGINT or SIGTERM, on a thread of its own. A second signal ends the process with exit code 130.
///
/// # Errors
/// If the operating system gives no thread or no signal handler.
pub fn on_stop(graceful: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("weft-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            // On a thread of its own, so that a second signal is heard while a slow stop goes on.
            let _ = std::thread::Builder::new().name("weft-stop".to_owned()).spawn(graceful);
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            eprintln!("stopped at once by a second signal; what was acknowledged as durable is durable");
            std::process::exit(130);
        });
    })?;
    Ok(())
}

//! demo
/// Runs.
pub fn run() -> Result<(), String> {
    Ok(())
}

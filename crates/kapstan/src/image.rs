//! `kapstan image …`: the images of the node on this machine.

use agent::images::Store;

use crate::args::{ImageCommand, ImagePlace};
use crate::serve::default_data_dir;

/// Carries out one command.
pub fn run(command: ImageCommand) -> Result<(), String> {
    match command {
        ImageCommand::Import { path, place } => {
            let imported = store(&place)?.import(&path, None).map_err(|error| error.to_string())?;
            for image in imported {
                println!("{} {}", image.image.id, image.names.join(" "));
            }
            Ok(())
        }
        ImageCommand::Build { tag, file, dir, place } => {
            let built = store(&place)?.build_containerfile(&tag, &dir, file.as_deref());
            let image = built.map_err(|error| error.to_string())?;
            println!("{} {tag}", image.id);
            Ok(())
        }
        ImageCommand::Ls { place } => list(&store(&place)?),
        ImageCommand::Rm { name, place } => {
            let removed = store(&place)?.remove(&name).map_err(|error| error.to_string())?;
            println!("{} removed", removed.name);
            for user in &removed.used_by {
                println!("still used by {}: its layers go with it", user.display());
            }
            Ok(())
        }
        ImageCommand::Pull { name, place } => {
            let store = store(&place)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            let image = runtime.block_on(store.pull(&name)).map_err(|error| error.to_string())?;
            println!("{} {name}", image.id);
            Ok(())
        }
    }
}

fn store(place: &ImagePlace) -> Result<Store, String> {
    let data_dir = place.data_dir.clone().unwrap_or_else(default_data_dir);
    Store::open(&data_dir).map_err(|error| error.to_string())
}

fn list(store: &Store) -> Result<(), String> {
    println!("{:<48} {:<19} {:>10}", "NAME", "ID", "SIZE");
    for image in store.list().map_err(|error| error.to_string())? {
        let id: String = image.id.chars().take(19).collect();
        println!("{:<48} {id:<19} {:>7} KB", image.name, image.size_bytes.div_ceil(1000));
    }
    Ok(())
}

//! Compiles the C++ shim (`src/torch/shim.cpp`) against libtorch's headers and tells the linker where libtorch lies,
//! so that the binary finds it from any directory.
//!
//! A binary that uses `tch` drops libtorch's CUDA half at link time unless its own build script says `--no-as-needed`
//! and names the libraries (tch issue 980).

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/torch/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // torch-sys publishes the folder it linked against; it is the one source of truth.
    let lib = PathBuf::from(std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names its libtorch folder"));
    let include = lib.parent().expect("lib has a parent").join("include");

    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .flag_if_supported("-Wno-unused-parameter")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .file("src/torch/shim.cpp")
        .compile("ppo_shim");

    let lib = lib.display();
    println!("cargo:rustc-link-search=native={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
}

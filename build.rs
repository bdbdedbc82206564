//! Compiles the C++ shim (`src/torch/*.cpp`) against libtorch's headers and tells the linker where libtorch is, so
//! that the binary finds it from any directory.
//!
//! torch-sys decides which libtorch that is (by LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB, LIBTORCH_USE_PYTORCH) and
//! publishes its library folder, which we use. A binary that uses `tch` drops libtorch's CUDA half at link time unless
//! its own build script passes `--no-as-needed` and names the libraries (tch issue 980).

#![allow(clippy::print_stdout)] // cargo reads stdout

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHIM: &str = "src/torch/shim.cpp";
const GPU: &str = "src/torch/gpu.cpp";
const FUSED: &str = "src/torch/cpu/fused.cpp";
const PACKED: &str = "src/torch/cpu/packed.cpp";
const TABLE: &str = "src/torch/cpu/table.cpp";
const LOOPS: &str = "src/torch/cpu/kernels.cpp";

/// The sets of instructions that the loops are compiled for besides the plain one, on x86-64: the name of their table,
/// and what they may use.
const LEVELS: [(&str, &str); 2] = [("AVX2", "x86-64-v3"), ("AVX512", "x86-64-v4")];

fn main() {
    for file in [SHIM, GPU, "src/torch/guarded.h", FUSED, PACKED, TABLE, LOOPS, "src/torch/cpu/kernels.h"] {
        println!("cargo:rerun-if-changed={file}");
    }
    // torch-sys has `links = "tch"` and prints `libtorch_lib`.
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = variable("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        return fail("torch-sys does not say where libtorch is");
    };
    println!("cargo:rerun-if-changed={}", lib.display());
    // The headers are beside the libraries, unless the user says otherwise in the way that torch-sys understands.
    let include = match variable("LIBTORCH_INCLUDE") {
        Some(home) if variable("LIBTORCH_USE_PYTORCH").is_none() => PathBuf::from(home).join("include"),
        _ => lib.with_file_name("include"),
    };
    if !lib.join("libtorch.so").exists() || !include.join("ATen").exists() {
        let (lib, include) = (lib.display(), include.display());
        return fail(&format!("no libtorch with its headers in {lib} and {include}: run scripts/setup"));
    }

    compile(&include);

    println!("cargo:rustc-env=PPO_TRAIN_COMMIT={}", commit());
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-lc10_cuda");
    }
    println!("cargo:rustc-link-arg=-ltorch");
}

/// Compiles the C++ code: what calls libtorch, and the loops once for each set of instructions.
fn compile(include: &Path) {
    let levels = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let mut all = cc::Build::new();
    // Optimised in debug builds too: tests train with it.
    all.cpp(true).std("c++20").opt_level(3);
    let mut calls = all.clone();
    calls
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .flag_if_supported("-Wno-unused-parameter")
        .flag("-fopenmp")
        .define("_GLIBCXX_USE_CXX11_ABI", variable("LIBTORCH_CXX11_ABI").as_deref().unwrap_or("1"));
    if levels {
        calls.define("PPO_LEVELS", None);
    }
    calls.files([SHIM, GPU, FUSED, PACKED, TABLE]);
    // Numbers that are not finite are kept as they are; only what no result depends on is given up.
    all.flags(["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]).file(LOOPS);
    let sets = [("PLAIN", None)].into_iter().chain(LEVELS.map(|(name, level)| (name, Some(level))));
    for (name, level) in sets.take(if levels { 3 } else { 1 }) {
        let mut own = all.clone();
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(name);
        own.define("PPO_TABLE", name).out_dir(out);
        if let Some(level) = level {
            own.flag(format!("-march={level}"));
        }
        calls.objects(own.compile_intermediates());
    }
    calls.compile("ppo_shim");
    println!("cargo:rustc-link-arg=-lgomp");
}

/// The commit that a release is built from: PPO_TRAIN_COMMIT, or what git says if this folder is a clone and not part
/// of another repository. While the code is being changed, each commit would build everything anew for a word that is
/// wrong a moment later: other profiles do not ask.
fn commit() -> String {
    if let Some(commit) = variable("PPO_TRAIN_COMMIT").filter(|commit| !commit.is_empty()) {
        return commit;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
    };
    let is_own = |top: &String| {
        let same = |a: &Path, b: &Path| a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a));
        env::current_dir().is_ok_and(|here| same(Path::new(top), &here))
    };
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let found = (|| {
        git(&["rev-parse", "--show-toplevel"]).filter(is_own).filter(|_| release)?;
        let head = git(&["rev-parse", "HEAD"])?;
        println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
        let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
        Some(if changed.is_empty() { head } else { format!("{head}-changed") })
    })();
    found.unwrap_or_else(|| "unknown".into())
}

/// An environment variable; if it changes, this script runs again.
fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok()
}

/// Ends the build with this message.
fn fail(message: &str) {
    println!("cargo::error={message}");
}

/* Starts the packaged program with the C library and loader that it was built with, whatever the system has: the kernel
   takes a program's loader from a fixed path only. Linked statically, so that it needs nothing itself. */
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char self[PATH_MAX], copy[PATH_MAX], loader[PATH_MAX + 64], libraries[PATH_MAX + 64], program[PATH_MAX + 64];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) {
        self[length] = 0;
    } else if (strchr(argv[0], '/') == NULL || realpath(argv[0], self) == NULL) {
        fprintf(stderr, "without /proc, start ppo-train by its path\n");
        return 1;
    }
    strcpy(copy, self);
    const char *home = dirname(copy);
    snprintf(loader, sizeof loader, "%s/lib/ld-linux-x86-64.so.2", home);
    snprintf(libraries, sizeof libraries, "%s/lib", home);
    snprintf(program, sizeof program, "%s/lib/ppo-train", home);
    /* Where the program starts itself once more: hooks beside training. */
    setenv("PPO_TRAIN_PROGRAM", self, 1);

    char **arguments = malloc((argc + 4) * sizeof *arguments);
    if (arguments == NULL) {
        return 1;
    }
    arguments[0] = loader;
    arguments[1] = "--library-path";
    arguments[2] = libraries;
    arguments[3] = program;
    memcpy(arguments + 4, argv + 1, argc * sizeof *argv);
    execv(loader, arguments);
    perror(loader);
    return 1;
}

/* Replaces dockerd: records how systemd started it, sends READY=1 and exits.
 *
 * One directory for each start, /run/differential/records/TIME-PID, with argv and environ as the
 * kernel has them (words ended by NUL), its cgroup, program (a link to what was executed, independent of argv[0]),
 * and sockets: a line for each descriptor passed, "FD FAMILY TYPE LISTENING V6ONLY SOCKADDR-IN-HEX".
 * Complete once `done` is there.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void copy(const char *from, const char *directory, const char *name) {
        char path[256], buffer[65536];
        snprintf(path, sizeof path, "%s/%s", directory, name);
        int in = open(from, O_RDONLY), out = open(path, O_WRONLY | O_CREAT, 0644);
        for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
                if (write(out, buffer, n) != n)
                        exit(1);
        close(in);
        close(out);
}

static void describe(FILE *out, int fd) {
        struct sockaddr_storage address = {};
        socklen_t length = sizeof address, size = sizeof(int);
        int type = 0, listening = 0, only = 0;
        if (getsockname(fd, (struct sockaddr *) &address, &length) < 0) {
                fprintf(out, "%d -1 0 0 0 -\n", fd);
                return;
        }
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
        size = sizeof(int);
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
        size = sizeof(int);
        if (address.ss_family == AF_INET6)
                getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size);
        fprintf(out, "%d %d %d %d %d ", fd, address.ss_family, type, listening, only);
        for (socklen_t i = 0; i < length; i++)
                fprintf(out, "%02x", ((unsigned char *) &address)[i]);
        fprintf(out, "\n");
}

static void ready(void) {
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        if (!path || strlen(path) >= sizeof address.sun_path)
                return;
        strcpy(address.sun_path, path);
        if (path[0] == '@')
                address.sun_path[0] = 0;
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        sendto(fd, "READY=1", 7, 0, (struct sockaddr *) &address,
               offsetof(struct sockaddr_un, sun_path) + strlen(path));
        close(fd);
}

int main(void) {
        char directory[128], path[256];
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        mkdir("/run/differential/records", 0755);
        snprintf(directory, sizeof directory, "/run/differential/records/%012ld%09ld-%d",
                 (long) now.tv_sec, now.tv_nsec, getpid());
        if (mkdir(directory, 0755) < 0)
                return 1;
        const char *passed = getenv("LISTEN_FDS");
        snprintf(path, sizeof path, "%s/sockets", directory);
        FILE *out = fopen(path, "w");
        for (int i = 0; passed && i < atoi(passed); i++)
                describe(out, 3 + i);
        fclose(out);
        char program[4096] = "";
        snprintf(path, sizeof path, "%s/program", directory);
        if (readlink("/proc/self/exe", program, sizeof program - 1) < 0 || symlink(program, path) < 0)
                return 1;
        copy("/proc/self/cmdline", directory, "argv");
        copy("/proc/self/environ", directory, "environ");
        copy("/proc/self/cgroup", directory, "cgroup");
        snprintf(path, sizeof path, "%s/done", directory);
        close(open(path, O_WRONLY | O_CREAT, 0644));
        ready();
        return 0;
}

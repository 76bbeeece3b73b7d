/* bare: the least that a runner can do which writes down that it starts a command before it starts it. It knows no
 * graph and checks nothing: COUNT times `/bin/true`, JOBS at once, each in a session of its own with pipes for its
 * output; all that begins and all that has ended shares one write and one fdatasync, over room that was made ahead (a file
 * that grows takes longer to sync). What `bench` calls the bare loop.
 *
 *     bare COUNT JOBS JOURNAL
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct slot {
  int pidfd; /* -1 = free */
  int streams[2];
};

/* As much as a commit of one page writes to SQLite's WAL. */
static char record[4120];

/* As runback makes room in the WAL. */
static char room[1 << 20];

static void commit(int journal) {
  static off_t end, length;
  end += (off_t)sizeof record;
  if (end > length) {
    if (pwrite(journal, room, sizeof room, length) != sizeof room) err(1, "journal");
    length += (off_t)sizeof room;
  }
  if (write(journal, record, sizeof record) != sizeof record || fdatasync(journal)) err(1, "journal");
}

/* What the child stands on until its exec, while we wait for that: the cheapest start there is. */
static char stack[32 << 10] __attribute__((aligned(16)));

static int child(void *fds) {
  static char *argv[] = {"/bin/true", NULL};
  sigset_t none;
  sigemptyset(&none);
  setsid();
  for (int i = 0; i < 3; i++) dup2(((int *)fds)[i], i);
  sigprocmask(SIG_SETMASK, &none, NULL);
  execve(argv[0], argv, environ);
  _exit(127);
}

static void start(struct slot *slot, int number, int epoll, int nothing) {
  int fds[3] = {nothing}, ends[2];
  for (int i = 0; i < 2; i++) {
    int both[2];
    if (pipe2(both, O_CLOEXEC)) err(1, "pipe");
    slot->streams[i] = both[0];
    fds[i + 1] = ends[i] = both[1];
  }
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
  if (clone(child, stack + sizeof stack, flags, fds, &slot->pidfd) < 0) err(1, "clone");
  sigprocmask(SIG_SETMASK, &before, NULL);
  close(ends[0]);
  close(ends[1]);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = (unsigned)number};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, slot->pidfd, &event)) err(1, "pidfd");
}

static void finish(struct slot *slot, int epoll) {
  siginfo_t info;
  char output[4096];
  if (waitid(P_PIDFD, (id_t)slot->pidfd, &info, WEXITED)) err(1, "waitid");
  for (int i = 0; i < 2; i++) {
    while (read(slot->streams[i], output, sizeof output) > 0) {
    }
    close(slot->streams[i]);
  }
  /* A child between its vfork and its exec may hold a copy, which would be told of for ever. */
  epoll_ctl(epoll, EPOLL_CTL_DEL, slot->pidfd, NULL);
  close(slot->pidfd);
  slot->pidfd = -1;
}

int main(int argc, char **argv) {
  if (argc != 4) errx(2, "usage: bare COUNT JOBS JOURNAL");
  int count = atoi(argv[1]), jobs = atoi(argv[2]), started = 0, ended = 0;
  int journal = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  struct slot *slots = calloc((size_t)jobs, sizeof *slots);
  if (journal < 0 || epoll < 0 || nothing < 0 || !slots) err(1, "%s", argv[3]);
  for (int i = 0; i < jobs; i++) slots[i].pidfd = -1;
  while (ended < count) {
    commit(journal);
    for (int i = 0; i < jobs && started < count; i++) {
      if (slots[i].pidfd < 0) {
        start(&slots[i], i, epoll, nothing);
        started++;
      }
    }
    struct epoll_event events[64];
    int told = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < told; i++) {
      finish(&slots[events[i].data.u32], epoll);
      ended++;
    }
  }
  commit(journal);
  return 0;
}

package dev.tidemark.ffm.lab;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicReference;

/** A limit for the memory that a process may have the kernel pin. Only x86-64 runs the lab. */
public final class LockedMemory {
  private static final int CAP_IPC_LOCK = 14;
  private static final int RLIMIT_MEMLOCK = 8;
  private static final int CAPABILITY_VERSION_3 = 0x20080522;

  private LockedMemory() {}

  /**
   * Runs some code under a limit, in a thread without the privilege to pass it. Capabilities are a
   * thread's own, so a thread is spent on it; the limit is the process's until the code is over.
   *
   * @param bytes {@code RLIMIT_MEMLOCK}
   * @throws AssertionError if the code throws
   */
  public static void limit(long bytes, Runnable code) throws InterruptedException {
    AtomicReference<Throwable> failure = new AtomicReference<>();
    Thread thread =
        Thread.ofPlatform()
            .uncaughtExceptionHandler((_, e) -> failure.set(e))
            .start(
                () -> {
                  try (Arena arena = Arena.ofConfined()) {
                    giveUpPrivilege(arena);
                    long before = setLimit(arena, bytes);
                    try {
                      code.run();
                    } finally {
                      setLimit(arena, before);
                    }
                  }
                });
    thread.join();
    if (failure.get() != null) {
      throw new AssertionError(failure.get());
    }
  }

  private static void giveUpPrivilege(Arena arena) {
    MemorySegment header = arena.allocate(8, 8);
    header.set(JAVA_INT, 0, CAPABILITY_VERSION_3);
    MemorySegment data = arena.allocate(24, 8);
    Libc.check(Libc.syscall(125, header.address(), data.address(), 0), "capget");
    data.set(JAVA_INT, 0, data.get(JAVA_INT, 0) & ~(1 << CAP_IPC_LOCK));
    Libc.check(Libc.syscall(126, header.address(), data.address(), 0), "capset");
  }

  private static long setLimit(Arena arena, long bytes) {
    MemorySegment limit = arena.allocate(16, 8);
    Libc.check(Libc.syscall(97, RLIMIT_MEMLOCK, limit.address(), 0), "getrlimit");
    long before = limit.get(JAVA_LONG, 0);
    limit.set(JAVA_LONG, 0, bytes);
    Libc.check(Libc.syscall(160, RLIMIT_MEMLOCK, limit.address(), 0), "setrlimit");
    return before;
  }
}

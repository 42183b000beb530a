package dev.tidemark.ffm.internal;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;

/**
 * The C library's functions, one static method each. Each returns what C returns, or {@code -errno}
 * where C would return -1: so nothing is thrown on the way, and errno cannot be read late. Errors
 * become exceptions one floor up, where the arguments that matter are known.
 *
 * <p>Cost: up to 40 bytes of garbage a call. {@code SharedUtils.checkCaptureSegment} slices the
 * errno buffer in each, and only C2 may remove that. Reading errno by a call of its own, or from
 * its address, would spare the slice: but the JVM runs code of its own on the thread in between,
 * which may overwrite it.
 *
 * <p>Threading: any platform thread. The errno buffer is per thread and lives as long as it.
 */
public final class Libc {
  /** From sys/resource.h. */
  public static final int PRIO_PROCESS = 0;

  private static final Linker LINKER = Linker.nativeLinker();
  private static final MemoryLayout STATE = Linker.Option.captureStateLayout();
  private static final VarHandle ERRNO =
      STATE.varHandle(MemoryLayout.PathElement.groupElement("errno")).withInvokeExactBehavior();
  private static final ThreadLocal<MemorySegment> CAPTURE =
      ThreadLocal.withInitial(() -> Arena.ofAuto().allocate(STATE));

  private static final MethodHandle MH$open =
      bind(2, "open", JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$close = bind(-1, "close", JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$ioctl =
      bind(2, "ioctl", JAVA_INT, JAVA_INT, JAVA_LONG, ADDRESS);
  private static final MethodHandle MH$ioctlValue =
      bind(2, "ioctl", JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG);
  private static final MethodHandle MH$mmap =
      bind(-1, "mmap", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG);
  private static final MethodHandle MH$munmap = bind(-1, "munmap", JAVA_INT, JAVA_LONG, JAVA_LONG);
  private static final MethodHandle MH$mprotect =
      bind(-1, "mprotect", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$madvise =
      bind(-1, "madvise", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$memfdCreate =
      bind(-1, "memfd_create", JAVA_INT, ADDRESS, JAVA_INT);
  private static final MethodHandle MH$ftruncate =
      bind(-1, "ftruncate", JAVA_INT, JAVA_INT, JAVA_LONG);
  private static final MethodHandle MH$lseek =
      bind(-1, "lseek", JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$mincore =
      bind(-1, "mincore", JAVA_INT, JAVA_LONG, JAVA_LONG, ADDRESS);
  private static final MethodHandle MH$fcntl =
      bind(2, "fcntl", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$sysconf = bind(-1, "sysconf", JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$syscall =
      bind(1, "syscall", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
  private static final MethodHandle MH$syscall4 =
      bind(1, "syscall", JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
  private static final MethodHandle MH$socket =
      bind(-1, "socket", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$bind =
      bind(-1, "bind", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT);
  private static final MethodHandle MH$listen = bind(-1, "listen", JAVA_INT, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$accept4 =
      bind(-1, "accept4", JAVA_INT, JAVA_INT, ADDRESS, ADDRESS, JAVA_INT);
  private static final MethodHandle MH$connect =
      bind(-1, "connect", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT);
  private static final MethodHandle MH$getsockname =
      bind(-1, "getsockname", JAVA_INT, JAVA_INT, ADDRESS, ADDRESS);
  private static final MethodHandle MH$setsockopt =
      bind(-1, "setsockopt", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT);
  private static final MethodHandle MH$getsockopt =
      bind(-1, "getsockopt", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, ADDRESS);
  private static final MethodHandle MH$shutdown =
      bind(-1, "shutdown", JAVA_INT, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$poll =
      bind(-1, "poll", JAVA_INT, ADDRESS, JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$readv =
      bind(-1, "readv", JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$writev =
      bind(-1, "writev", JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);
  private static final MethodHandle MH$read =
      bind(-1, "read", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
  private static final MethodHandle MH$write =
      bind(-1, "write", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG);
  private static final MethodHandle MH$getpid = bind(-1, "getpid", JAVA_INT);
  private static final MethodHandle MH$geteuid = bind(-1, "geteuid", JAVA_INT);
  private static final MethodHandle MH$gettid = bind(-1, "gettid", JAVA_INT);
  private static final MethodHandle MH$setpriority =
      bind(-1, "setpriority", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$tgkill =
      bind(-1, "tgkill", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT);
  private static final MethodHandle MH$pthreadSigmask =
      bind(-1, "pthread_sigmask", JAVA_INT, JAVA_INT, ADDRESS, ADDRESS);
  private static final MethodHandle MH$sigtimedwait =
      bind(-1, "sigtimedwait", JAVA_INT, ADDRESS, ADDRESS, ADDRESS);
  private static final MethodHandle MH$getrusage =
      bind(-1, "getrusage", JAVA_INT, JAVA_INT, ADDRESS);

  private Libc() {}

  // The linker is asked for a function by its C name only here, so this is the one restricted call.
  @SuppressWarnings("restricted")
  private static MethodHandle bind(
      int firstVariadic, String name, ValueLayout result, ValueLayout... arguments) {
    MemorySegment symbol =
        LINKER
            .defaultLookup()
            .find(name)
            .orElseThrow(() -> new LinkageError("the C library has no function " + name));
    FunctionDescriptor descriptor = FunctionDescriptor.of(result, arguments);
    Linker.Option capture = Linker.Option.captureCallState("errno");
    return firstVariadic < 0
        ? LINKER.downcallHandle(symbol, descriptor, capture)
        : LINKER.downcallHandle(
            symbol, descriptor, capture, Linker.Option.firstVariadicArg(firstVariadic));
  }

  /**
   * Gives native memory that the kernel handed out a length and a lifetime.
   *
   * @param address what mmap returned
   * @param bytes the length asked of mmap
   */
  @SuppressWarnings("restricted")
  public static MemorySegment memory(long address, long bytes) {
    return MemorySegment.ofAddress(address).reinterpret(bytes);
  }

  /**
   * Gives a mapping the lifetime of an arena, for memory that threads may reach for while it goes:
   * an access then throws, where one to unmapped memory would end the process.
   *
   * @param mapping closed with the arena
   */
  @SuppressWarnings("restricted")
  public static MemorySegment memory(Mapping mapping, Arena arena) {
    return mapping.segment().reinterpret(arena, _ -> mapping.close());
  }

  /**
   * A string as C has it.
   *
   * @throws IllegalArgumentException if it has a character 0, where C would end it
   */
  public static MemorySegment string(Arena arena, String text) {
    if (text.indexOf(0) >= 0) {
      throw new IllegalArgumentException(
          "a character 0 in '" + text.replace((char) 0, '?') + "', shown as ?");
    }
    return arena.allocateFrom(text);
  }

  private static long result(long value, MemorySegment state) {
    return value == -1 ? -(long) (int) ERRNO.get(state, 0L) : value;
  }

  private static int result(int value, MemorySegment state) {
    return value == -1 ? -(int) ERRNO.get(state, 0L) : value;
  }

  private static AssertionError unexpected(Throwable cause) {
    if (cause instanceof Error error) {
      throw error;
    }
    if (cause instanceof RuntimeException exception) {
      throw exception;
    }
    return new AssertionError(cause);
  }

  public static int open(String path, int flags, int mode) {
    MemorySegment state = CAPTURE.get();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = string(arena, path);
      return result((int) MH$open.invokeExact(state, name, flags, mode), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int close(int fd) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$close.invokeExact(state, fd), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int ioctl(int fd, long request, MemorySegment argument) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$ioctl.invokeExact(state, fd, request, argument), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int ioctl(int fd, long request, long argument) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$ioctlValue.invokeExact(state, fd, request, argument), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long mmap(
      long address, long length, int protection, int flags, int fd, long offset) {
    MemorySegment state = CAPTURE.get();
    try {
      return result(
          (long) MH$mmap.invokeExact(state, address, length, protection, flags, fd, offset), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int munmap(long address, long length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$munmap.invokeExact(state, address, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int mprotect(long address, long length, int protection) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$mprotect.invokeExact(state, address, length, protection), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int madvise(long address, long length, int advice) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$madvise.invokeExact(state, address, length, advice), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int memfdCreate(String name, int flags) {
    MemorySegment state = CAPTURE.get();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment label = string(arena, name);
      return result((int) MH$memfdCreate.invokeExact(state, label, flags), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int ftruncate(int fd, long length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$ftruncate.invokeExact(state, fd, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long lseek(int fd, long offset, int whence) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$lseek.invokeExact(state, fd, offset, whence), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int mincore(long address, long length, MemorySegment vector) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$mincore.invokeExact(state, address, length, vector), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int fcntl(int fd, int command, int argument) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$fcntl.invokeExact(state, fd, command, argument), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long sysconf(int name) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$sysconf.invokeExact(state, name), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long syscall(long number, long a, long b, long c) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$syscall.invokeExact(state, number, a, b, c), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long syscall(long number, long a, long b, long c, long d) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$syscall4.invokeExact(state, number, a, b, c, d), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int socket(int domain, int type, int protocol) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$socket.invokeExact(state, domain, type, protocol), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int bind(int fd, MemorySegment address, int length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$bind.invokeExact(state, fd, address, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int listen(int fd, int backlog) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$listen.invokeExact(state, fd, backlog), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int accept4(int fd, MemorySegment address, MemorySegment length, int flags) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$accept4.invokeExact(state, fd, address, length, flags), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int connect(int fd, MemorySegment address, int length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$connect.invokeExact(state, fd, address, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int getsockname(int fd, MemorySegment address, MemorySegment length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$getsockname.invokeExact(state, fd, address, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int setsockopt(int fd, int level, int option, MemorySegment value, int length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result(
          (int) MH$setsockopt.invokeExact(state, fd, level, option, value, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int getsockopt(
      int fd, int level, int option, MemorySegment value, MemorySegment length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result(
          (int) MH$getsockopt.invokeExact(state, fd, level, option, value, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int shutdown(int fd, int how) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$shutdown.invokeExact(state, fd, how), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int poll(MemorySegment fds, long count, int timeoutMillis) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$poll.invokeExact(state, fds, count, timeoutMillis), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long readv(int fd, long vectors, int count) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$readv.invokeExact(state, fd, vectors, count), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long writev(int fd, long vectors, int count) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$writev.invokeExact(state, fd, vectors, count), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long read(int fd, MemorySegment buffer, long length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$read.invokeExact(state, fd, buffer, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static long write(int fd, MemorySegment buffer, long length) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((long) MH$write.invokeExact(state, fd, buffer, length), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int getpid() {
    MemorySegment state = CAPTURE.get();
    try {
      return (int) MH$getpid.invokeExact(state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int geteuid() {
    MemorySegment state = CAPTURE.get();
    try {
      return (int) MH$geteuid.invokeExact(state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int gettid() {
    MemorySegment state = CAPTURE.get();
    try {
      return (int) MH$gettid.invokeExact(state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  /** Linux keeps a priority per thread, and 0 is the calling one (setpriority(2), notes). */
  public static int setpriority(int which, int who, int priority) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$setpriority.invokeExact(state, which, who, priority), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int tgkill(int process, int thread, int signal) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$tgkill.invokeExact(state, process, thread, signal), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  /** Here C itself returns the error number, positive. */
  public static int pthreadSigmask(int how, MemorySegment set, MemorySegment old) {
    MemorySegment state = CAPTURE.get();
    try {
      return -(int) MH$pthreadSigmask.invokeExact(state, how, set, old);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int sigtimedwait(MemorySegment set, MemorySegment info, MemorySegment timeout) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$sigtimedwait.invokeExact(state, set, info, timeout), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  public static int getrusage(int who, MemorySegment usage) {
    MemorySegment state = CAPTURE.get();
    try {
      return result((int) MH$getrusage.invokeExact(state, who, usage), state);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  /** Turns {@code -errno} into the exception of the call; any other value is returned. */
  public static long check(long result, String call) {
    if (result < 0) {
      throw new LinuxException(call, (int) -result);
    }
    return result;
  }
}

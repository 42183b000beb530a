package dev.tidemark.ffm.userfaultfd;

import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_API;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_API_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_RANGE_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_REGISTER;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_REGISTER_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_REGISTER_MODE_WP;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_UNREGISTER;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_WRITEPROTECT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_WRITEPROTECT_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFDIO_WRITEPROTECT_MODE_WP;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFD_API;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.UFFD_USER_MODE_ONLY;
import static dev.tidemark.ffm.userfaultfd.UserfaultfdUapi.USERFAULTFD_IOC_NEW;
import static java.lang.foreign.MemoryLayout.PathElement.groupElement;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.internal.Libc;
import dev.tidemark.ffm.internal.Unwind;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Locale;
import java.util.Optional;

/**
 * An owner of a {@code userfaultfd(2)} for write protection. Once {@linkplain #register registered}
 * with {@link UserfaultfdUapi#UFFD_FEATURE_WP_ASYNC}, a {@link Pagemap} scan protects pages and
 * tells which were written.
 *
 * <p>A registration belongs to the mapping, not to the addresses: {@code munmap} and {@code mremap}
 * lose it, and a child of {@code fork} does not have it.
 *
 * <p>Threading: any thread. Cost: one system call each, with a small argument on a confined arena.
 */
public final class Userfaultfd implements AutoCloseable {
  private static final String DEVICE = "/dev/userfaultfd";
  private static final int FLAGS = Fd.O_CLOEXEC | Fd.O_NONBLOCK | UFFD_USER_MODE_ONLY;

  /** How often {@code EAGAIN} is taken for an answer that will change. */
  private static final int TRIES = 1000;

  private static final long API$api = UFFDIO_API_LAYOUT.byteOffset(groupElement("api"));
  private static final long API$features = UFFDIO_API_LAYOUT.byteOffset(groupElement("features"));
  private static final long RANGE$start = UFFDIO_RANGE_LAYOUT.byteOffset(groupElement("start"));
  private static final long RANGE$len = UFFDIO_RANGE_LAYOUT.byteOffset(groupElement("len"));
  private static final long REGISTER$range =
      UFFDIO_REGISTER_LAYOUT.byteOffset(groupElement("range"));
  private static final long REGISTER$mode = UFFDIO_REGISTER_LAYOUT.byteOffset(groupElement("mode"));
  private static final long WRITEPROTECT$range =
      UFFDIO_WRITEPROTECT_LAYOUT.byteOffset(groupElement("range"));
  private static final long WRITEPROTECT$mode =
      UFFDIO_WRITEPROTECT_LAYOUT.byteOffset(groupElement("mode"));

  private final Fd fd;

  private Userfaultfd(Fd fd) {
    this.fd = fd;
  }

  /**
   * What this host offers.
   *
   * @param features all {@code UFFD_FEATURE_} bits that the kernel has; 0 where {@code missing}
   * @param missing why there is no userfaultfd and what would enable it, in one line; else empty
   */
  public record Support(long features, Optional<String> missing) {
    /**
     * Why some features cannot be had.
     *
     * @param wanted any of {@code UFFD_FEATURE_}
     * @return one line, or empty if all are there
     */
    public Optional<String> missing(long wanted) {
      long absent = wanted & ~features;
      if (missing.isPresent() || absent == 0) {
        return missing;
      }
      return Optional.of(
          "userfaultfd has no "
              + String.join(", ", UserfaultfdUapi.featureNames(absent))
              + " on this kernel (WP_ASYNC came with Linux 6.7)");
    }
  }

  /** Asks a descriptor of its own, thrown away afterwards, because the question can be put once. */
  public static Support probe() {
    try (Fd fd = create()) {
      return new Support(api(fd, 0), Optional.empty());
    } catch (LinuxException e) {
      return new Support(0, Optional.of(e.getMessage()));
    }
  }

  /**
   * Opens one, by system call or, where that is not allowed, from {@code /dev/userfaultfd}.
   *
   * @param features {@code UFFD_FEATURE_} bits to switch on
   * @throws LinuxException {@code EPERM} or {@code ENOSYS} if neither way is open; {@code EINVAL}
   *     if the kernel lacks a feature
   */
  public static Userfaultfd open(long features) {
    return open(create(), features);
  }

  /** As {@link #open(long)}, from {@code /dev/userfaultfd} only. */
  static Userfaultfd openFromDevice(long features) {
    return open(createFromDevice(), features);
  }

  private static Userfaultfd open(Fd fd, long features) {
    try {
      api(fd, features);
      return new Userfaultfd(fd);
    } catch (Throwable e) {
      Unwind.closeAll(e, fd);
      if (!(e instanceof LinuxException refused)) {
        throw e;
      }
      Optional<String> why = probe().missing(features);
      if (why.isEmpty()) {
        throw refused;
      }
      throw new LinuxException("ioctl(UFFDIO_API)", refused.errno(), why.get());
    }
  }

  private static Fd create() {
    String arch = System.getProperty("os.arch");
    long number =
        switch (arch) {
          case "amd64" -> 323;
          case "aarch64" -> 282;
          default -> throw new UnsupportedOperationException("userfaultfd on " + arch);
        };
    long result = Libc.syscall(number, FLAGS, 0, 0);
    if (result >= 0) {
      return Fd.own((int) result, "userfaultfd");
    }
    try {
      return createFromDevice();
    } catch (LinuxException e) {
      throw new LinuxException(
          "userfaultfd",
          (int) -result,
          "the system call is not allowed here, and neither is its other way: " + e.getMessage());
    }
  }

  private static Fd createFromDevice() {
    try (Fd device = Fd.open(DEVICE, Fd.O_RDWR)) {
      return Fd.own(Ioctl.call(device, USERFAULTFD_IOC_NEW, FLAGS), "userfaultfd");
    }
  }

  /** The handshake, possible once per descriptor, even if asked for no feature. */
  private static long api(Fd fd, long features) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment api = arena.allocate(UFFDIO_API_LAYOUT);
      api.set(JAVA_LONG, API$api, UFFD_API);
      api.set(JAVA_LONG, API$features, features);
      Ioctl.call(fd, UFFDIO_API, api);
      return api.get(JAVA_LONG, API$features);
    }
  }

  /** The descriptor, closed with this owner. */
  public Fd fd() {
    return fd;
  }

  /**
   * Registers memory for write protection. Nothing is protected yet: the first {@link Pagemap} scan
   * reports every page as written.
   *
   * @param start address of the first byte, a multiple of the page
   * @param bytes a multiple of the page; all of it mapped without a hole at the start
   * @throws LinuxException {@code EBUSY} if another userfaultfd has some of it; {@code EINVAL} if
   *     nothing is mapped there, or it is special memory; {@code EPERM} if it is a mapping of a
   *     file that was opened for reading only
   * @throws ClosedException after close
   */
  public void register(long start, long bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment register = arena.allocate(UFFDIO_REGISTER_LAYOUT);
      setRange(register, REGISTER$range, start, bytes);
      register.set(JAVA_LONG, REGISTER$mode, UFFDIO_REGISTER_MODE_WP);
      String advice =
          "is it mapped, writable, in whole pages, and not registered by another userfaultfd?";
      issue(UFFDIO_REGISTER, register, start, bytes, advice);
    }
  }

  /**
   * Protects pages, so that a write marks them written, or takes the protection away, so that they
   * count as written.
   *
   * @param start address of the first byte, a multiple of the page
   * @param bytes a multiple of the page, more than 0
   * @param protect whether to protect
   * @throws LinuxException {@code ENOENT} if some of it is not registered
   * @throws ClosedException after close
   */
  public void writeProtect(long start, long bytes, boolean protect) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment argument = arena.allocate(UFFDIO_WRITEPROTECT_LAYOUT);
      setRange(argument, WRITEPROTECT$range, start, bytes);
      argument.set(JAVA_LONG, WRITEPROTECT$mode, protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0);
      issue(UFFDIO_WRITEPROTECT, argument, start, bytes, "is all of it registered?");
    }
  }

  /**
   * Ends a registration and takes its protection away.
   *
   * @param start address of the first byte, a multiple of the page
   * @param bytes a multiple of the page
   * @throws LinuxException {@code EINVAL} if nothing is mapped there
   * @throws ClosedException after close
   */
  public void unregister(long start, long bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment range = arena.allocate(UFFDIO_RANGE_LAYOUT);
      setRange(range, 0, start, bytes);
      issue(UFFDIO_UNREGISTER, range, start, bytes, "is it mapped, in whole pages?");
    }
  }

  private static void setRange(MemorySegment argument, long offset, long start, long bytes) {
    argument.set(JAVA_LONG, offset + RANGE$start, start);
    argument.set(JAVA_LONG, offset + RANGE$len, bytes);
  }

  private void issue(
      Ioctl.Request request, MemorySegment argument, long start, long bytes, String advice) {
    int result = Ioctl.tryCall(fd, request, argument);
    // EAGAIN: another thread is changing the address space just now (mmap_changing).
    for (int i = 1; i < TRIES && (result == -Errno.EAGAIN || result == -Errno.EINTR); i++) {
      Thread.yield();
      result = Ioctl.tryCall(fd, request, argument);
    }
    if (result < 0) {
      throw Ioctl.failure(
          fd,
          request,
          -result,
          String.format(Locale.ROOT, "%d bytes at 0x%x: %s", bytes, start, advice));
    }
  }

  /** Ends all registrations and takes their protection away. */
  @Override
  public void close() {
    fd.close();
  }

  @Override
  public String toString() {
    return fd.toString();
  }
}

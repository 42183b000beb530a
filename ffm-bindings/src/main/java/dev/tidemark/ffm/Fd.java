package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;

/**
 * A file descriptor, own or borrowed. An own one is closed by {@link #close()}; a borrowed one
 * never is, but its handle is.
 *
 * <p>The number is lent out between {@link #acquire()} and {@link #release()}: a close in that time
 * takes effect for everybody at once, but the descriptor itself goes only with the last release. So
 * no call in flight ever reaches another file that was given the same number.
 *
 * <p>Threading: any thread. Cost: two compare-and-swaps a call; no allocation.
 */
public final class Fd implements AutoCloseable {
  /** {@code O_RDONLY} of {@code fcntl.h}. */
  public static final int O_RDONLY = 0;

  /** {@code O_RDWR} of {@code fcntl.h}. */
  public static final int O_RDWR = 2;

  /** {@code O_NONBLOCK} of {@code fcntl.h}, as on x86-64 and arm64. */
  public static final int O_NONBLOCK = 0x800;

  /** {@code O_CLOEXEC} of {@code fcntl.h}, as on x86-64 and arm64. */
  public static final int O_CLOEXEC = 0x80000;

  private static final VarHandle STATE;

  static {
    try {
      STATE = MethodHandles.lookup().findVarHandle(Fd.class, "state", int.class);
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  private static final int CLOSED = 1 << 31;

  /** Read and write for this user, for what {@code O_CREAT} makes. */
  private static final int NEW_FILE_MODE = 0x180;

  /** Who closes a number: with two owners, the second close would hit another file. */
  private static final ConcurrentMap<Integer, Fd> OWNERS = new ConcurrentHashMap<>();

  private final int number;
  private final boolean own;
  private final String label;

  /** How many calls are in flight; the sign bit says closed. */
  private volatile int state;

  private Fd(int number, boolean own, String label) {
    if (number < 0) {
      throw new IllegalArgumentException("not a file descriptor: " + number);
    }
    this.number = number;
    this.own = own;
    this.label = label;
  }

  /**
   * Takes over a descriptor: {@link #close()} closes it.
   *
   * @param number the descriptor, which nobody else closes
   * @param label what it is, for error messages
   * @throws IllegalStateException if another one owns it
   */
  public static Fd own(int number, String label) {
    Fd fd = new Fd(number, true, label);
    Fd owner = OWNERS.putIfAbsent(number, fd);
    if (owner != null) {
      throw new IllegalStateException(
          "descriptor " + number + " cannot be owned twice: its owner is " + owner);
    }
    return fd;
  }

  /**
   * Uses somebody else's descriptor, which must stay open meanwhile and is never closed here.
   *
   * @param number the descriptor
   * @param label what it is, for error messages
   */
  public static Fd borrow(int number, String label) {
    return new Fd(number, false, label);
  }

  /**
   * Opens a file with {@code O_CLOEXEC}.
   *
   * @param path the file
   * @param flags {@link #O_RDONLY} or {@link #O_RDWR}, and others of {@code open(2)}; a file that
   *     {@code O_CREAT} makes can be read and written by this user only
   * @throws IllegalArgumentException if the path has a character 0
   * @throws LinuxException if the file cannot be opened
   */
  public static Fd open(String path, int flags) {
    int result = Libc.open(path, flags | O_CLOEXEC, NEW_FILE_MODE);
    if (result < 0) {
      throw new LinuxException("open(" + path + ")", -result, openAdvice(-result));
    }
    return own(result, path);
  }

  private static String openAdvice(int errno) {
    return switch (errno) {
      case Errno.EACCES, Errno.EPERM -> "this user may not open it";
      case Errno.EBUSY -> "somebody else has it open";
      case Errno.EMFILE -> "raise the limit of open files (ulimit -n)";
      default -> null;
    };
  }

  /**
   * Borrows the number for a call. Each acquire needs its {@link #release()}.
   *
   * @throws ClosedException if this handle is closed
   */
  public int acquire() {
    int seen;
    do {
      seen = state;
      if (seen < 0) {
        throw new ClosedException(label);
      }
    } while (!STATE.compareAndSet(this, seen, seen + 1));
    return number;
  }

  /**
   * Ends what {@link #acquire()} began.
   *
   * @throws IllegalStateException if there was no acquire that has not ended
   */
  public void release() {
    int seen;
    do {
      seen = state;
      if ((seen & ~CLOSED) == 0) {
        throw new IllegalStateException(this + " was released more often than acquired");
      }
    } while (!STATE.compareAndSet(this, seen, seen - 1));
    if (seen == (CLOSED | 1)) {
      closeNumber();
    }
  }

  /** Whether {@link #close()} closes the descriptor too. */
  boolean isOwn() {
    return own;
  }

  /** Whether {@link #close()} was called. */
  public boolean isClosed() {
    return state < 0;
  }

  /** What this descriptor is, for error messages. */
  public String label() {
    return label;
  }

  /** Closes the handle for good, and an own descriptor as soon as no call is in flight. */
  @Override
  public void close() {
    int before = (int) STATE.getAndBitwiseOr(this, CLOSED);
    if (before == 0) {
      closeNumber();
    }
  }

  private void closeNumber() {
    // close(2) frees the number even when it reports EINTR, so trying again could hit another file.
    if (own) {
      // Before the close: from then on the kernel may give the number to a new owner.
      OWNERS.remove(number, this);
      Libc.close(number);
    }
  }

  @Override
  public String toString() {
    return label + " (fd " + number + (own ? "" : ", borrowed") + (isClosed() ? ", closed)" : ")");
  }
}

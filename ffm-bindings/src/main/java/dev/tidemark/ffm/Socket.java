package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.ref.Reference;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;

/**
 * A stream socket, TCP or Unix, blocking, straight on the C library: gathering and scattering calls
 * of up to {@link IoVectors#MAX} pieces of memory allocate nothing for each piece, where {@code
 * SocketChannel} allocates 10 KB per call of 256.
 *
 * <p>Nothing here encrypts. So what is not on this host is refused, but for the two calls whose
 * name says it: {@link #listenPlaintext} and {@link #connectPlaintext}.
 *
 * <p>A TCP connection whose other side vanished (power, cable, kernel) ends with {@code ETIMEDOUT}
 * after about a minute, idle or not: keep-alive and {@code TCP_USER_TIMEOUT} are on, where the
 * kernel lets them. The same minute is for a peer that is there but takes nothing while bytes wait
 * for it.
 *
 * <p>Threading: one reading and one writing thread; {@link #shutdown()} and {@link #close()} of an
 * own socket from any thread wake both. The JVM ignores {@code SIGPIPE}, so writing to a closed
 * connection fails with {@code EPIPE}.
 */
public final class Socket implements AutoCloseable {
  private static final int SOCK_STREAM = 1;
  private static final int SOCK_NONBLOCK = 0x800;
  private static final int SOCK_CLOEXEC = 0x80000;
  private static final int FIONBIO = 0x5421;
  private static final int SOL_SOCKET = 1;
  private static final int SO_REUSEADDR = 2;
  private static final int SO_KEEPALIVE = 9;
  private static final int SO_PEERCRED = 17;
  private static final int SO_RCVTIMEO = 20;
  private static final int SO_SNDTIMEO = 21;
  private static final int IPPROTO_TCP = 6;
  private static final int TCP_NODELAY = 1;
  private static final int TCP_KEEPIDLE = 4;
  private static final int TCP_KEEPINTVL = 5;
  private static final int TCP_KEEPCNT = 6;
  private static final int TCP_CONGESTION = 13;
  private static final int TCP_USER_TIMEOUT = 18;
  private static final int SHUT_WR = 1;
  private static final int SHUT_RDWR = 2;
  private static final int BACKLOG = 16;
  private static final short POLLIN = 1;
  private static final short POLLOUT = 4;

  private static final Duration CONNECT_LIMIT = Duration.ofSeconds(10);
  private static final Duration FOREVER = Duration.ofDays(100 * 365);

  private final Fd fd;
  private final MemorySegment poll = Arena.ofAuto().allocate(8, 4);

  /** The file of a listening Unix socket, and the file system's key for it; or null. */
  private final Path file;

  private final Object fileKey;

  /** See {@link #limitWaits}; 0 for no limit. */
  private volatile long limitNanos;

  /**
   * Who is at the other end of a Unix socket, as the kernel says it ({@code SO_PEERCRED}): taken
   * when the other side connected, or when it began to listen.
   *
   * @param pid its process, 0 if that is not of this PID namespace
   * @param uid its effective user
   * @param gid its effective group
   */
  public record Peer(int pid, int uid, int gid) {
    /** Whether it is the user that this process runs as. */
    public boolean isThisUser() {
      return uid == Libc.geteuid();
    }
  }

  private Socket(Fd fd) {
    this(fd, null, null);
  }

  private Socket(Fd fd, Path file, Object fileKey) {
    this.fd = fd;
    this.file = file;
    this.fileKey = fileKey;
  }

  /**
   * Uses a connected stream socket that is already there; {@link #close()} leaves it open, and none
   * of its options is changed.
   *
   * @param number its descriptor, in blocking mode
   */
  public static Socket borrow(int number) {
    return new Socket(Fd.borrow(number, "socket"));
  }

  /**
   * Listens for connections from this host.
   *
   * @param address a loopback address and a port; port 0 takes a free one, see {@link
   *     #localAddress()}
   * @throws IllegalArgumentException if the address is none of loopback, or not resolved
   * @throws LinuxException {@code EADDRINUSE} if the port is taken
   */
  public static Socket listen(InetSocketAddress address) {
    requireLoopback(address, "listenPlaintext");
    return listenPlaintext(address);
  }

  /**
   * As {@link #listen(InetSocketAddress)} on any address of this host. Whoever can read the network
   * can read what is sent, and whoever can reach the port can connect: for networks that keep
   * strangers out.
   *
   * @param address port 0 takes a free one
   */
  public static Socket listenPlaintext(InetSocketAddress address) {
    String call = "(" + Sockaddr.text(address) + ")";
    int number = create(Sockaddr.family(address), 0);
    try (Arena arena = Arena.ofConfined()) {
      option(arena, number, SOL_SOCKET, SO_REUSEADDR, 1);
      MemorySegment name = Sockaddr.of(arena, address);
      check(Libc.bind(number, name, (int) name.byteSize()), "bind" + call);
      check(Libc.listen(number, BACKLOG), "listen" + call);
      return new Socket(Fd.own(number, "listener at " + Sockaddr.text(localAddress(number))));
    } catch (RuntimeException e) {
      Libc.close(number);
      throw e;
    }
  }

  /**
   * Listens on a Unix socket that only this user, and root, can connect to (mode 0600). {@link
   * #close()} removes its file; a process that is killed leaves it.
   *
   * @param path where to create it, 1 to 107 bytes; its directory should belong to this user
   * @throws LinuxException {@code EADDRINUSE} if there is a file, even if nobody listens any more
   */
  public static Socket listen(Path path) {
    int number = create(Sockaddr.AF_UNIX, 0);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = Sockaddr.of(arena, path);
      check(Libc.bind(number, name, (int) name.byteSize()), "bind(" + path + ")");
      try {
        // Nobody can connect before listen, so nobody slips in before the mode is set.
        Files.setPosixFilePermissions(path, PosixFilePermissions.fromString("rw-------"));
        Object key = fileKey(path);
        check(Libc.listen(number, BACKLOG), "listen(" + path + ")");
        return new Socket(Fd.own(number, "listener at " + path), path, key);
      } catch (IOException | RuntimeException e) {
        Files.deleteIfExists(path);
        throw e;
      }
    } catch (IOException e) {
      Libc.close(number);
      throw new UncheckedIOException("no mode can be set of " + path, e);
    } catch (RuntimeException e) {
      Libc.close(number);
      throw e;
    }
  }

  /** As {@link #connect(InetSocketAddress, Duration)} with 10 s. */
  public static Socket connect(InetSocketAddress address) {
    return connect(address, CONNECT_LIMIT);
  }

  /**
   * Connects to a port of this host. Where both ends have the same address, and so are one host,
   * what this end sends is not paced: its congestion control is Reno, whatever the host's default.
   * Between hosts the default stays.
   *
   * @param address a loopback address and a port
   * @param limit how long to wait for the other side, above 0
   * @throws IllegalArgumentException if the address is none of loopback, or not resolved
   * @throws LinuxException {@code ECONNREFUSED} if nobody listens there, {@code ETIMEDOUT} if
   *     nobody answers within the limit
   */
  public static Socket connect(InetSocketAddress address, Duration limit) {
    requireLoopback(address, "connectPlaintext");
    return connectPlaintext(address, limit);
  }

  /**
   * As {@link #connect(InetSocketAddress, Duration)} to any host. Whoever can read the network can
   * read what is sent, and change it: for networks that keep strangers out.
   */
  public static Socket connectPlaintext(InetSocketAddress address, Duration limit) {
    long nanos = nanos(limit);
    String to = Sockaddr.text(address);
    // It does not block while it connects: a blocking connect(2) has no time limit of ours, and one
    // that a signal interrupts cannot be called again.
    int number = create(Sockaddr.family(address), SOCK_NONBLOCK);
    try (Arena arena = Arena.ofConfined()) {
      connect(arena, number, Sockaddr.of(arena, address), "connect(" + to + ")", nanos);
      Libc.check(Libc.ioctl(number, FIONBIO, arena.allocateFrom(JAVA_INT, 0)), "ioctl(FIONBIO, 0)");
      InetSocketAddress local = localAddress(number);
      if (local.equals(new InetSocketAddress(address.getAddress(), address.getPort()))) {
        // Nobody listens there, but the kernel gave this end that very port: it talks to itself.
        throw noConnection("connect(" + to + ")", Errno.ECONNREFUSED);
      }
      tune(arena, number);
      if (local.getAddress().equals(address.getAddress())) {
        // A host's default may pace (BBR does): a timer for each packet, which inside one host
        // costs
        // more than the packet. Every kernel has this one.
        optional(arena, number, IPPROTO_TCP, TCP_CONGESTION, arena.allocateFrom("reno"));
      }
      return new Socket(Fd.own(number, "connection to " + to));
    } catch (RuntimeException e) {
      Libc.close(number);
      throw e;
    }
  }

  private static void connect(
      Arena arena, int number, MemorySegment name, String call, long limitNanos) {
    long start = System.nanoTime();
    while (true) {
      int result = Libc.connect(number, name, (int) name.byteSize());
      if (result == 0 || result == -Errno.EISCONN) {
        return;
      }
      if (result != -Errno.EINPROGRESS && result != -Errno.EALREADY && result != -Errno.EINTR) {
        throw noConnection(call, -result);
      }
      // Ready to write says that the attempt is over; the next connect says how it ended.
      if (!await(arena.allocate(8, 4), number, POLLOUT, start, limitNanos)) {
        throw new LinuxException(
            call,
            Errno.ETIMEDOUT,
            "no answer for " + millis(limitNanos) + " ms: is that host up, does a firewall drop?");
      }
    }
  }

  /**
   * Connects to a Unix socket, waiting up to 10 s if too many others do.
   *
   * @param path its file, 1 to 107 bytes
   * @throws LinuxException {@code ENOENT} or {@code ECONNREFUSED} if nobody listens there, {@code
   *     EACCES} if this user may not connect
   */
  public static Socket connect(Path path) {
    int number = create(Sockaddr.AF_UNIX, 0);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = Sockaddr.of(arena, path);
      waitLimit(arena, number, SO_SNDTIMEO, CONNECT_LIMIT.toNanos());
      long start = System.nanoTime();
      int result;
      do {
        // Here, unlike in TCP, an attempt that a signal interrupted is undone.
        result = Libc.connect(number, name, (int) name.byteSize());
      } while (result == -Errno.EINTR && System.nanoTime() - start < CONNECT_LIMIT.toNanos());
      if (result == -Errno.EAGAIN || result == -Errno.EINTR) {
        throw new LinuxException(
            "connect(" + path + ")", Errno.ETIMEDOUT, "whoever listens there accepts nobody");
      }
      if (result < 0) {
        throw noConnection("connect(" + path + ")", -result);
      }
      waitLimit(arena, number, SO_SNDTIMEO, 0);
      return new Socket(Fd.own(number, "connection to " + path));
    } catch (RuntimeException e) {
      Libc.close(number);
      throw e;
    }
  }

  private static void requireLoopback(InetSocketAddress address, String other) {
    Sockaddr.family(address);
    if (!address.getAddress().isLoopbackAddress()) {
      throw new IllegalArgumentException(
          Sockaddr.text(address)
              + " is no loopback address, and nothing encrypts what is sent: use a tunnel, or "
              + other
              + " where the network keeps strangers out");
    }
  }

  private static int create(int family, int flags) {
    String call =
        switch (family) {
          case Sockaddr.AF_UNIX -> "socket(AF_UNIX)";
          case Sockaddr.AF_INET -> "socket(AF_INET)";
          default -> "socket(AF_INET6)";
        };
    return (int) check(Libc.socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), call);
  }

  /** What every TCP connection gets, where the kernel lets it. */
  private static void tune(Arena arena, int number) {
    option(arena, number, IPPROTO_TCP, TCP_NODELAY, 1);
    // 30 s of silence, then three questions 10 s apart.
    option(arena, number, SOL_SOCKET, SO_KEEPALIVE, 1);
    option(arena, number, IPPROTO_TCP, TCP_KEEPIDLE, 30);
    option(arena, number, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    option(arena, number, IPPROTO_TCP, TCP_KEEPCNT, 3);
    // Keep-alive is silent while bytes are on their way; this one is for them.
    option(arena, number, IPPROTO_TCP, TCP_USER_TIMEOUT, 60_000);
  }

  private static void option(Arena arena, int number, int level, int option, int value) {
    optional(arena, number, level, option, arena.allocateFrom(JAVA_INT, value));
  }

  /**
   * Sets an option without which the connection works too, if less well. Kernels, sandboxes and
   * filters refuse some of them, each with an error of its own, so none of the errors counts.
   */
  private static void optional(
      Arena arena, int number, int level, int option, MemorySegment value) {
    Libc.setsockopt(number, level, option, value, (int) value.byteSize());
  }

  private static int waitLimit(Arena arena, int number, int option, long nanos) {
    // struct timeval; 0 is no limit, so what is above it is never rounded down to it.
    MemorySegment time = arena.allocate(16, 8);
    long micros = (nanos + 999) / 1000;
    time.set(JAVA_LONG, 0, micros / 1_000_000);
    time.set(JAVA_LONG, 8, micros % 1_000_000);
    return Libc.setsockopt(number, SOL_SOCKET, option, time, 16);
  }

  /** A time limit in nanoseconds; one of centuries is as good as any. */
  private static long nanos(Duration limit) {
    if (limit.isNegative() || limit.isZero()) {
      throw new IllegalArgumentException("a limit of " + limit);
    }
    return limit.compareTo(FOREVER) < 0 ? limit.toNanos() : FOREVER.toNanos();
  }

  private static long millis(long nanos) {
    return (nanos + 999_999) / 1_000_000;
  }

  private static long check(int result, String call) {
    if (result < 0) {
      throw failed(call, -result);
    }
    return result;
  }

  private static LinuxException failed(String call, int errno) {
    return new LinuxException(call, errno, advice(errno));
  }

  private static LinuxException noConnection(String call, int errno) {
    return errno == Errno.ECONNREFUSED || errno == Errno.ENOENT
        ? new LinuxException(call, errno, "nobody listens there: start the receiver first")
        : failed(call, errno);
  }

  private static String advice(int errno) {
    return switch (errno) {
      case Errno.ETIMEDOUT -> "no answer: is that host up, does a firewall drop?";
      case Errno.ENETUNREACH, Errno.EHOSTUNREACH -> "no way leads there: check the address";
      case Errno.EADDRINUSE -> "it is taken: by another listener, or a file that one has left";
      case Errno.EADDRNOTAVAIL -> "this host has no such address, or no port is free";
      case Errno.EACCES, Errno.EPERM -> "this user may not do that";
      case Errno.EMFILE -> "raise the limit of open files (ulimit -n)";
      case Errno.ECONNRESET, Errno.EPIPE -> "is the other side gone?";
      default -> null;
    };
  }

  /**
   * Limits how long one call waits while not a byte moves: a read, a write or an accept that waited
   * that long throws {@link LinuxException} with {@code EAGAIN}. A write that moved some bytes
   * before it stalled notices after up to twice the limit. Nothing is lost by it: the call can be
   * made again.
   *
   * @param limit above 0; the kernel rounds it up to its clock's ticks, of up to 10 ms
   * @return false if the descriptor is no socket, so that nothing is limited
   * @throws LinuxException if the kernel refuses for another reason
   */
  public boolean limitWaits(Duration limit) {
    long nanos = nanos(limit);
    int number = fd.acquire();
    try (Arena arena = Arena.ofConfined()) {
      for (int option : new int[] {SO_RCVTIMEO, SO_SNDTIMEO}) {
        int result = waitLimit(arena, number, option, nanos);
        if (result == -Errno.ENOTSOCK) {
          return false;
        }
        check(result, "setsockopt(" + option + ") on " + fd);
      }
      limitNanos = nanos;
      return true;
    } finally {
      fd.release();
    }
  }

  /**
   * When the call that begins now began, for {@link #again}; costs nothing where nothing is
   * limited.
   */
  private long begin() {
    return limitNanos == 0 ? 0 : System.nanoTime();
  }

  /**
   * Whether a call that returned an error is made once more: after a signal, unless signals without
   * end have kept it from noticing that its time is up.
   *
   * @return true; otherwise it throws what the error means
   */
  private boolean again(String call, long result, long begin) {
    checkOpen();
    long limit = limitNanos;
    if (result == -Errno.EINTR) {
      if (limit == 0 || begin == 0 || System.nanoTime() - begin < limit) {
        return true;
      }
      result = -Errno.EAGAIN;
    }
    if (result == -Errno.EAGAIN) {
      throw new LinuxException(
          call + " on " + fd,
          Errno.EAGAIN,
          limit == 0
              ? "the descriptor must be in blocking mode"
              : "nothing moved for " + millis(limit) + " ms");
    }
    throw failed(call + " on " + fd, (int) -result);
  }

  /** A call that a close ended says so, not what the kernel made of it. */
  private void checkOpen() {
    if (fd.isClosed()) {
      throw new ClosedException(fd.label());
    }
  }

  /** The descriptor, closed with this owner if it is its own. */
  Fd fd() {
    return fd;
  }

  /**
   * The address that this socket is bound to.
   *
   * @throws IllegalStateException if it is a Unix socket
   */
  public InetSocketAddress localAddress() {
    int number = fd.acquire();
    try {
      return localAddress(number);
    } finally {
      fd.release();
    }
  }

  private static InetSocketAddress localAddress(int number) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = arena.allocate(Sockaddr.MAX_BYTES, 4);
      MemorySegment length = arena.allocateFrom(JAVA_INT, Sockaddr.MAX_BYTES);
      Libc.check(Libc.getsockname(number, name, length), "getsockname");
      InetSocketAddress address = Sockaddr.inet(name);
      if (address == null) {
        throw new IllegalStateException("a Unix socket has a path, no address and port");
      }
      return address;
    }
  }

  /**
   * Who is at the other end of a Unix socket.
   *
   * @throws IllegalStateException if it is none: of other connections the kernel does not know
   */
  public Peer peer() {
    int number = fd.acquire();
    try {
      Peer peer = peer(number);
      if (peer.uid == -1) {
        throw new IllegalStateException(fd + " is no connected Unix socket: its peer is unknown");
      }
      return peer;
    } finally {
      fd.release();
    }
  }

  private static Peer peer(int number) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment who = arena.allocate(12, 4);
      MemorySegment length = arena.allocateFrom(JAVA_INT, 12);
      Libc.check(
          Libc.getsockopt(number, SOL_SOCKET, SO_PEERCRED, who, length), "getsockopt(SO_PEERCRED)");
      return new Peer(who.get(JAVA_INT, 0), who.get(JAVA_INT, 4), who.get(JAVA_INT, 8));
    }
  }

  /**
   * Waits for a connection. One that broke before it was accepted is skipped. A limit of this
   * socket's waits is none of the connection's.
   *
   * @throws LinuxException if this is no listening socket, or {@link #shutdown()} was called
   */
  public Socket accept() {
    int listener = fd.acquire();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = arena.allocate(Sockaddr.MAX_BYTES, 4);
      MemorySegment length = arena.allocateFrom(JAVA_INT, Sockaddr.MAX_BYTES);
      long begin = begin();
      int number;
      do {
        length.set(JAVA_INT, 0, Sockaddr.MAX_BYTES);
        number = Libc.accept4(listener, name, length, SOCK_CLOEXEC);
      } while (number == -Errno.ECONNABORTED || number < 0 && again("accept4", number, begin));
      return accepted(arena, number, Sockaddr.inet(name));
    } finally {
      fd.release();
    }
  }

  private Socket accepted(Arena arena, int number, InetSocketAddress from) {
    try {
      if (limitNanos != 0) {
        // TCP connections inherit it.
        waitLimit(arena, number, SO_RCVTIMEO, 0);
        waitLimit(arena, number, SO_SNDTIMEO, 0);
      }
      if (from == null) {
        return new Socket(Fd.own(number, "connection from process " + peer(number).pid));
      }
      tune(arena, number);
      return new Socket(Fd.own(number, "connection from " + Sockaddr.text(from)));
    } catch (RuntimeException e) {
      Libc.close(number);
      throw e;
    }
  }

  /**
   * Writes until all of the vectors went out.
   *
   * @param vectors what to write; empty of bytes afterwards
   * @return how many calls it took
   * @throws LinuxException {@code EPIPE} or {@code ECONNRESET} if the other side is gone
   */
  public int writeFully(IoVectors vectors) {
    int number = fd.acquire();
    try {
      int calls = 0;
      long begin = begin();
      while (vectors.remaining() > 0) {
        long moved = Libc.writev(number, vectors.pending(), vectors.pendingCount());
        calls++;
        if (moved >= 0) {
          vectors.advance(moved);
          begin = begin();
        } else {
          again("writev", moved, begin);
        }
      }
      return calls;
    } finally {
      Reference.reachabilityFence(vectors);
      fd.release();
    }
  }

  /**
   * Reads what is there, waiting for at least a byte.
   *
   * @param address where to put it: native memory of at least {@code bytes} bytes
   * @param bytes the most to read, more than 0
   * @return how many bytes, 0 at the end of the stream
   * @throws LinuxException {@code ECONNRESET} if the other side is gone
   */
  public long read(MemorySegment address, long bytes) {
    if (bytes <= 0 || bytes > address.byteSize()) {
      throw new IndexOutOfBoundsException(bytes + " bytes into " + address.byteSize());
    }
    if (address.isReadOnly()) {
      throw new IllegalArgumentException("read-only memory to read into");
    }
    int number = fd.acquire();
    try {
      long begin = begin();
      long result;
      do {
        result = Libc.read(number, address, bytes);
      } while (result < 0 && again("read", result, begin));
      if (result == 0) {
        checkOpen();
      }
      return result;
    } finally {
      fd.release();
    }
  }

  /**
   * Reads once into several pieces of memory, waiting for at least a byte.
   *
   * @param vectors where to put it, not empty of bytes; what was filled is taken off
   * @return how many bytes, 0 at the end of the stream
   * @throws LinuxException {@code ECONNRESET} if the other side is gone
   */
  public long read(IoVectors vectors) {
    if (vectors.remaining() == 0) {
      // The kernel would answer 0, which is how it says that the stream has ended.
      throw new IllegalArgumentException("no memory to read into");
    }
    vectors.checkWritable();
    int number = fd.acquire();
    try {
      long begin = begin();
      long result;
      do {
        result = Libc.readv(number, vectors.pending(), vectors.pendingCount());
      } while (result < 0 && again("readv", result, begin));
      if (result == 0) {
        checkOpen();
      }
      vectors.advance(result);
      return result;
    } finally {
      Reference.reachabilityFence(vectors);
      fd.release();
    }
  }

  /**
   * Waits until there is something to read or accept, or the stream has ended.
   *
   * @param timeoutMillis milliseconds, 0 to look only
   * @return false if the time is up
   */
  public boolean awaitReadable(int timeoutMillis) {
    if (timeoutMillis < 0) {
      throw new IllegalArgumentException("timeout of " + timeoutMillis + " ms");
    }
    int number = fd.acquire();
    try {
      return await(poll, number, POLLIN, System.nanoTime(), timeoutMillis * 1_000_000L);
    } finally {
      fd.release();
    }
  }

  /** Waits for an event; false if the time is up. */
  private static boolean await(
      MemorySegment poll, int number, short event, long start, long limitNanos) {
    poll.set(JAVA_INT, 0, number);
    poll.set(JAVA_SHORT, 4, event);
    while (true) {
      long left = Math.clamp(millis(limitNanos - (System.nanoTime() - start)), 0, 1 << 30);
      int result = Libc.poll(poll, 1, (int) left);
      if (result > 0) {
        return true;
      }
      if (result != -Errno.EINTR) {
        Libc.check(result, "poll of descriptor " + number);
        if (System.nanoTime() - start >= limitNanos) {
          return false;
        }
      }
    }
  }

  /** Says that no more will be written; reading goes on. */
  public void shutdownOutput() {
    shutdown(SHUT_WR);
  }

  /** Ends both directions at once: whoever reads, writes or accepts in another thread returns. */
  public void shutdown() {
    shutdown(SHUT_RDWR);
  }

  private void shutdown(int how) {
    int number = fd.acquire();
    try {
      // ENOTCONN only says that the other side was faster.
      Libc.shutdown(number, how);
    } finally {
      fd.release();
    }
  }

  private static Object fileKey(Path path) throws IOException {
    return Files.readAttributes(path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS)
        .fileKey();
  }

  /** Removes the file of a listening Unix socket, unless another one has taken its place. */
  private void removeFile() {
    try {
      if (file != null && fileKey(file).equals(fileKey)) {
        Files.delete(file);
      }
    } catch (IOException e) {
      // Somebody else removed it, or keeps this user from doing so: nothing to do about it.
    }
  }

  /**
   * Closes it, an own one with its descriptor: whoever reads, writes or accepts in another thread
   * returns with a {@link ClosedException}. A borrowed one stays as it is, and so do calls on it.
   */
  @Override
  public void close() {
    int number;
    try {
      number = fd.acquire();
    } catch (ClosedException e) {
      return;
    }
    try {
      removeFile();
      fd.close();
      if (fd.isOwn()) {
        // Calls in flight keep the descriptor open: they have to end first.
        Libc.shutdown(number, SHUT_RDWR);
      }
    } finally {
      fd.release();
    }
  }

  @Override
  public String toString() {
    return fd.toString();
  }
}

package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Socket;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;
import java.util.function.Consumer;

/** Two ends of a TCP connection over loopback. */
record Connection(Socket near, Socket far) implements AutoCloseable {
  static Connection open() {
    try (Socket listening = Socket.listen(new InetSocketAddress("127.0.0.1", 0))) {
      Socket near = Socket.connect(listening.localAddress());
      return new Connection(near, listening.accept());
    }
  }

  /** A connection whose near end gives these bytes and then ends. */
  static Connection giving(byte[] bytes) {
    Connection connection = open();
    inBackground(
        () -> {
          try {
            write(connection.far, bytes);
            connection.far.shutdownOutput();
          } catch (LinuxException e) {
            // The reader had enough.
          }
          return null;
        });
    return connection;
  }

  /** The bytes that are written to a socket. */
  static byte[] capture(Consumer<Socket> writes) throws Exception {
    try (Connection connection = open()) {
      FutureTask<byte[]> reading = inBackground(() -> readAll(connection.far));
      writes.accept(connection.near);
      connection.near.shutdownOutput();
      return reading.get();
    }
  }

  static <T> FutureTask<T> inBackground(Callable<T> task) {
    FutureTask<T> future = new FutureTask<>(task);
    Thread thread = new Thread(future, "test peer");
    thread.setDaemon(true);
    thread.start();
    return future;
  }

  static void write(Socket socket, byte[] bytes) {
    if (bytes.length == 0) {
      return;
    }
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocateFrom(JAVA_BYTE, bytes);
      IoVectors vectors = new IoVectors(arena, 1);
      vectors.add(memory);
      socket.writeFully(vectors);
    }
  }

  static byte[] readAll(Socket socket) {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(64 << 10);
      while (true) {
        long length = socket.read(buffer, buffer.byteSize());
        if (length == 0) {
          return all.toByteArray();
        }
        all.writeBytes(buffer.asSlice(0, length).toArray(JAVA_BYTE));
      }
    }
  }

  @Override
  public void close() {
    near.close();
    far.close();
  }
}

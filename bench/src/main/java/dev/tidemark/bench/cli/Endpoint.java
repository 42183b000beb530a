package dev.tidemark.bench.cli;

import dev.tidemark.ffm.Socket;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/**
 * Where a receiver listens: a port of loopback, which any user of this host can reach, or a Unix
 * socket, which only its own user and root can.
 *
 * @param tcp the port; null for a Unix socket
 * @param unix the socket's file; null for a port
 */
record Endpoint(InetSocketAddress tcp, Path unix) {
  private static final Pattern TCP = Pattern.compile("tcp:([^:]+):(\\d{1,5})");
  private static final String UNIX = "unix:";
  private static final int ROOT = 0;

  /** {@code tcp:127.0.0.1:4444} or {@code unix:/run/user/1000/guest}. */
  static final class Converter implements ITypeConverter<Endpoint> {
    @Override
    public Endpoint convert(String text) {
      if (text.startsWith(UNIX) && text.length() > UNIX.length()) {
        try {
          return new Endpoint(null, Path.of(text.substring(UNIX.length())));
        } catch (InvalidPathException e) {
          throw new TypeConversionException("'" + text + "' has no path");
        }
      }
      Matcher m = TCP.matcher(text);
      int port = m.matches() ? Integer.parseInt(m.group(2)) : -1;
      if (port < 0 || port > 65535) {
        throw new TypeConversionException(
            "'" + text + "' is not an address tcp:HOST:PORT or unix:PATH");
      }
      try {
        InetAddress host = InetAddress.getByName(m.group(1));
        if (!host.isLoopbackAddress()) {
          throw new TypeConversionException(
              "'"
                  + text
                  + "' is no loopback address, and nothing encrypts what is sent: use 127.0.0.1 or"
                  + " unix:PATH, and a tunnel between hosts");
        }
        return new Endpoint(new InetSocketAddress(host, port), null);
      } catch (UnknownHostException e) {
        throw new TypeConversionException("'" + m.group(1) + "' is no host that is known here");
      }
    }
  }

  Socket listen() {
    return tcp != null ? Socket.listen(tcp) : Socket.listen(unix);
  }

  /**
   * Connects to who listens there.
   *
   * @throws IllegalStateException if that is another user's process
   */
  Socket connect() {
    if (tcp != null) {
      return Socket.connect(tcp);
    }
    Socket socket = Socket.connect(unix);
    try {
      requireFriend(socket);
      return socket;
    } catch (RuntimeException e) {
      socket.close();
      throw e;
    }
  }

  /** Refuses other users at the other end of a Unix socket; of a port nobody knows the user. */
  void requireFriend(Socket socket) {
    if (unix != null) {
      Socket.Peer peer = socket.peer();
      if (!peer.isThisUser() && peer.uid() != ROOT) {
        throw new IllegalStateException(
            "the other side is user " + peer.uid() + ", neither this user nor root");
      }
    }
  }

  /** How a source reaches a listener there. */
  String text(Socket listener) {
    if (unix != null) {
      return UNIX + unix;
    }
    InetSocketAddress here = listener.localAddress();
    return "tcp:" + here.getAddress().getHostAddress() + ":" + here.getPort();
  }
}

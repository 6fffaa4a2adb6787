// SPDX-License-Identifier: LGPL-2.1-or-later
// A program in Vala that sends itself a message, to show that the bindings are usable.

int main () {
  try {
    var name = "vala-%d".printf ((int) Posix.getpid ());
    var receiver = new Ferry.Channel ("memfd", name, Ferry.Role.RECEIVER);
    var sender = new Ferry.Channel ("memfd", name, Ferry.Role.SENDER);
    receiver.open (null);
    sender.open (null);
    sender.send_bytes (new Bytes ("hello from Vala".data), Ferry.WAIT_FOREVER, null);
    var bytes = receiver.receive_bytes (Ferry.WAIT_FOREVER, null);
    stdout.write (bytes.get_data ());
    stdout.putc ('\n');
    return 0;
  } catch (Error e) {
    stderr.printf ("%s\n", e.message);
    return 1;
  }
}
